"""The forward proxy that the environment names for an address: HTTPS_PROXY and its relatives."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # proxy_bypass takes no list
    getproxies_environment,
    proxy_bypass_environment,
)

from daemon.address import host_port
from model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from urllib.parse import SplitResult

log = logging.getLogger(__name__)

_KINDS: Final = {"https": "https", "wss": "https", "http": "http", "ws": "http"}
_HTTP_PORT: Final = 80


def environment() -> Mapping[str, str]:
    """The proxies of the environment by what they are for: ``http``, ``https``, ``all``, ``no``."""
    return getproxies_environment()


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The HTTP proxy to reach an address by, None for none.

    Args:
        url: of REST or of a websocket.
        proxies: as `environment` has them. Loopback addresses never go through a proxy.

    Raises:
        ConfigError: the proxy is of another kind.

    >>> proxy_for("wss://stream.example/ws", {"https": "proxy:3128", "no": "api.example"})
    'http://proxy:3128'
    >>> proxy_for("https://api.example/", {"https": "proxy:3128", "no": "api.example"})
    """
    split = urlsplit(url)
    host = split.hostname or ""
    named = proxies.get(_KINDS.get(split.scheme, ""), "") or proxies.get("all", "")
    if not named or _is_loopback(host) or proxy_bypass_environment(host, dict(proxies)):
        return None
    proxy = named if "://" in named else f"http://{named}"
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
    """A subclass of a ccxt exchange that goes through the environment's proxy."""
    from aiohttp.helpers import strip_auth_from_url
    from yarl import URL

    def without_login(proxy: str | None) -> str | None:
        # An error of aiohttp shows the address of the proxy.
        return None if proxy is None else str(strip_auth_from_url(URL(proxy))[0])

    class Proxied(base):  # type: ignore[misc]
        def open(self, lazy: bool = False) -> None:  # noqa: FBT001, FBT002 - ccxt's signature
            super().open(lazy)
            for proxy in _proxies(self):
                self.session._default_proxy_auth = strip_auth_from_url(URL(proxy))[1]  # noqa: SLF001

        def check_proxy_settings(self, url: str, *_: object) -> list[str | None]:
            """What ccxt asks before each request: proxies for HTTP, HTTPS and SOCKS."""
            return [None, without_login(proxy_for(url, environment())), None]

        def client(self, url: str) -> Any:  # noqa: ANN401 - ccxt's
            made = super().client(url)
            made.proxy = without_login(proxy_for(url, environment()))
            return made

    Proxied.__name__ = base.__name__
    return Proxied


def proxies_of(exchange: Any) -> list[str]:  # noqa: ANN401 - ccxt's classes are untyped
    """Host and port of each proxy that an exchange is reached through, without user and password.

    Raises:
        ConfigError: a proxy cannot be used.
    """
    proxies = _proxies(exchange)
    if len({proxy.rpartition("@")[0] for proxy in proxies}) > 1:
        msg = "HTTP_PROXY and HTTPS_PROXY have different logins; name one proxy for both"
        raise ConfigError(msg)
    return sorted(str(_address(proxy)) for proxy in proxies)


def note_proxies(exchange: Any) -> None:  # noqa: ANN401 - ccxt's
    """Log what an exchange is reached through."""
    if proxies := proxies_of(exchange):
        log.info("%s is reached through the proxy %s", exchange.id, " and ".join(proxies))


def _proxies(exchange: Any) -> set[str]:  # noqa: ANN401 - ccxt's
    proxies = environment()
    if not any(proxies.get(kind) for kind in ("http", "https", "all")):
        return set()
    found = {
        proxy_for(exchange.implode_hostname(url), proxies)
        for url in _addresses(exchange.urls.get("api"))
    }
    return {proxy for proxy in found if proxy is not None}


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
