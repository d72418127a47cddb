"""Choose the forward proxy for an address from the environment (HTTPS_PROXY and others).

The standard library parses the variables (`urllib.request`). What is written here is the choice by
scheme, since ccxt takes one proxy for all addresses, and aiohttp reads no ``ALL_PROXY``.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # proxy_bypass takes no list
    getproxies_environment,
    proxy_bypass_environment,
)

from daemon.runtime.address import host_port
from model.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from urllib.parse import SplitResult

log = logging.getLogger("candlecast.runtime")

_VARIABLE_BY_SCHEME: Final = {"https": "https", "wss": "https", "http": "http", "ws": "http"}
_VARIABLES: Final = ("https", "http", "all")
_HTTP_PORT: Final = 80


def environment() -> Mapping[str, str]:
    """Proxies of the environment: ``http``, ``https``, ``all``; ``no`` lists exceptions."""
    return getproxies_environment()


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The HTTP proxy for an address; None for a direct connection.

    Args:
        url: address of a REST or websocket endpoint.
        proxies: as `environment` returns them. Loopback addresses never go through a proxy.

    Raises:
        ConfigError: the proxy is not an HTTP proxy.

    >>> proxy_for("wss://stream.example/ws", {"https": "proxy:3128", "no": "api.example"})
    'http://proxy:3128'
    >>> proxy_for("https://api.example/", {"https": "proxy:3128", "no": "api.example"})
    """
    split = urlsplit(url)
    host = split.hostname or ""
    named = proxies.get(_VARIABLE_BY_SCHEME.get(split.scheme, ""), "") or proxies.get("all", "")
    if not named or _is_loopback(host) or proxy_bypass_environment(host, dict(proxies)):
        return None
    proxy = _with_scheme(named)
    scheme, address = proxy.partition("://")[0].lower(), _address(proxy)
    if address is None:
        msg = "the environment's proxy is not an address such as http://proxy.example:3128"
        raise ConfigError(msg)
    if scheme != "http":
        msg = (
            f"the environment names a proxy of the kind {scheme} ({address}), and candlecast uses "
            f"HTTP proxies only; set HTTPS_PROXY to one, or list {host} in NO_PROXY"
        )
        raise ConfigError(msg)
    return proxy


def proxied(base: type[Any]) -> type[Any]:
    """A subclass of a ccxt exchange that uses the environment's proxy."""
    from aiohttp.helpers import strip_auth_from_url
    from yarl import URL

    def without_login(proxy: str | None) -> str | None:
        # Errors of aiohttp show the address of the proxy.
        return None if proxy is None else str(strip_auth_from_url(URL(proxy))[0])

    class Proxied(base):  # type: ignore[misc]
        def open(self, lazy: bool = False) -> None:  # noqa: FBT001, FBT002 - ccxt's signature
            super().open(lazy)
            proxies = environment()
            named = next((proxies[kind] for kind in _VARIABLES if proxies.get(kind)), "")
            if "@" in named:
                login = strip_auth_from_url(URL(_with_scheme(named)))[1]
                self.session._default_proxy_auth = login  # noqa: SLF001

        def check_proxy_settings(self, url: str, *_: object) -> list[str | None]:
            """Called by ccxt before each request: proxies for HTTP, HTTPS and SOCKS."""
            return [None, without_login(proxy_for(url, environment())), None]

        def client(self, url: str) -> Any:  # noqa: ANN401 - ccxt's
            made = super().client(url)
            made.proxy = without_login(proxy_for(url, environment()))
            return made

    Proxied.__name__ = base.__name__
    return Proxied


def proxies_of(exchange: Any, *, streams: bool = True) -> list[str]:  # noqa: ANN401 - ccxt's
    """Host and port of each proxy used for an exchange, without user and password.

    Args:
        exchange: ccxt instance.
        streams: whether websockets are used as well.

    Raises:
        ConfigError: a proxy cannot be used.
    """
    proxies = environment()
    named = {proxies[kind] for kind in _VARIABLES if proxies.get(kind)}
    if not named:
        return []
    urls = map(exchange.implode_hostname, _addresses(exchange.urls.get("api")))
    found = {proxy_for(url, proxies) for url in urls if streams or not url.startswith("ws")}
    used = {proxy for proxy in found if proxy is not None}
    if used and len({_with_scheme(proxy).rpartition("@")[0] for proxy in named}) > 1:
        msg = "the proxies of the environment have different logins; name one proxy for all"
        raise ConfigError(msg)
    return sorted(str(_address(proxy)) for proxy in used)


def note_proxies(exchange: Any, *, streams: bool = True) -> None:  # noqa: ANN401 - ccxt's
    """Log the proxies used for an exchange.

    Raises:
        ConfigError: a proxy cannot be used.
    """
    if proxies := proxies_of(exchange, streams=streams):
        log.info("%s is reached through the proxy %s", exchange.id, " and ".join(proxies))


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _addresses(urls: Any) -> Iterator[str]:  # noqa: ANN401 - nested as ccxt likes
    if isinstance(urls, str):
        yield urls
    elif isinstance(urls, dict | list):
        for value in urls.values() if isinstance(urls, dict) else urls:
            yield from _addresses(value)


def _address(proxy: str) -> str | None:
    try:
        split: SplitResult = urlsplit(proxy)
        port = split.port
    except ValueError:
        return None
    return host_port(split.hostname, port or _HTTP_PORT) if split.hostname else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
