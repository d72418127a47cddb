"""Create ccxt clients, check symbols and describe ccxt's errors in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from daemon.exchange.capabilities import check_capability
from daemon.exchange.source import parse_symbol
from daemon.exchange.volume_units import set_rest_volume_option
from daemon.runtime.forward_proxy import proxied
from daemon.runtime.gc_control import no_gc
from model.core.errors import ConfigError, ExchangeError, NotOffered
from model.core.symbol_hint import likely_symbol

_ORIGIN: Final = re.compile(r"^(https?|wss?)://[^/?#]*", re.IGNORECASE)
_MAX_REASON_CHARS: Final = 200
_MAX_LISTED: Final = 12
_MAX_SUGGESTIONS: Final = 3


def make_exchange(
    name: str,
    endpoint_rest: str | None = None,
    endpoint_ws: str | None = None,
    *,
    symbols: Iterable[str] = (),
    wrap: Callable[[type[Any]], type[Any]] | None = None,
) -> Any:  # noqa: ANN401 - ccxt's classes are untyped
    """Make a rate-limited ccxt.pro instance; it connects at the first request.

    It uses the proxy that the environment names.

    Args:
        name: ccxt id.
        endpoint_rest: scheme, host and port that replace those of every REST address.
        endpoint_ws: the same for every websocket address.
        symbols: will be requested; only their types of markets are loaded, where ccxt can
            choose. Empty: all types.
        wrap: turns the exchange's class into the subclass to instantiate.

    Raises:
        ConfigError: ccxt.pro knows no such exchange.
    """
    check_exchange(name)
    import ccxt.pro

    from daemon.exchange.response_limit import size_limited_class

    base = proxied(size_limited_class(getattr(ccxt.pro, name)))
    exchange = (wrap(base) if wrap else base)({"enableRateLimit": True})
    exchange.urls = override_hosts(exchange.urls, endpoint_rest, endpoint_ws)
    set_rest_volume_option(exchange)
    _limit_market_types(exchange, set(symbols))
    return exchange


def _limit_market_types(exchange: Any, symbols: set[str]) -> None:  # noqa: ANN401
    """Exclude the types of markets that no symbol belongs to from loading."""
    options = exchange.options.get("fetchMarkets")
    types = options.get("types") if isinstance(options, dict) else None
    if not isinstance(types, list) or not symbols:
        return
    excluded = set.intersection(*map(_excluded_market_types, symbols))
    if wanted := [kind for kind in types if kind not in excluded]:
        options["types"] = wanted


def _excluded_market_types(symbol: str) -> set[str]:
    """Return the market types, as exchanges name them in ccxt, that a symbol cannot belong to."""
    parts = parse_symbol(symbol)
    if parts.type == "spot":
        return {"linear", "inverse", "swap", "future", "contract", "option", "stock"}
    options = set() if parts.type == "option" else {"option"}
    return {"spot", "stock", "linear" if parts.volume_kind == "inverse" else "inverse"} | options


@cache
def _ccxt_pro() -> Any:  # noqa: ANN401
    # Cached: objects that exist at the end of `no_gc` are never collected, so entering it for each
    # connection would keep the old connections in memory.
    with no_gc():
        import ccxt.pro  # takes a second
    return ccxt.pro


def check_exchange(name: str) -> None:
    """Check that ccxt can watch an exchange of this name.

    Raises:
        ConfigError: it cannot; the message lists similar names.
    """
    names = _ccxt_pro().exchanges
    if name not in names:
        similar = _similar(name, names) or f"one of {', '.join(names)}"
        msg = f"exchange.name: ccxt cannot watch an exchange {name!r}; did you mean {similar}?"
        raise ConfigError(msg)


def override_hosts(urls: Any, rest: str | None, ws: str | None) -> Any:  # noqa: ANN401 - nested dicts and lists
    """Replace scheme, host and port of every address in nested dicts and lists; keep the paths.

    Addresses with the scheme ws or wss get ``ws``, the others ``rest``; None keeps them.
    Host-name templates (``https://{hostname}/x``) are replaced like any other host.
    """
    if isinstance(urls, dict):
        return {key: override_hosts(value, rest, ws) for key, value in urls.items()}
    if isinstance(urls, list):
        return [override_hosts(value, rest, ws) for value in urls]
    found = _ORIGIN.match(urls) if isinstance(urls, str) else None
    if found is None:
        return urls
    origin = ws if found[1].lower().startswith("ws") else rest
    return urls if origin is None else origin.rstrip("/") + urls[found.end() :]


def check_market(exchange: Any, symbols: Iterable[str], timeframe: str, *, capability: str) -> None:  # noqa: ANN401
    """Check that an exchange whose markets are loaded lists symbols and supports their candles.

    Args:
        exchange: ccxt instance.
        symbols: ccxt symbols.
        timeframe: ccxt timeframe.
        capability: ``watchOHLCV`` or ``fetchOHLCV``.

    Raises:
        NotOffered: see `check_capability`; or a symbol is not listed, and similar ones are named.
    """
    symbols = list(symbols)
    for symbol in symbols:
        if symbol not in exchange.markets:
            msg = f"{exchange.id} has no symbol {symbol}; {_alternatives(symbol, exchange.markets)}"
            raise NotOffered(msg)
    check_capability(exchange, symbols, timeframe, capability=capability)


UNREADABLE_ERRORS: Final = (TypeError, ValueError, LookupError, AttributeError)
"""What ccxt raises for a response of another shape than it expects."""


def network_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a request to an exchange may raise without a bug."""
    import aiohttp
    import ccxt

    return (ccxt.BaseError, aiohttp.ClientError, OSError)


def is_transient(error: BaseException) -> bool:
    """Whether a request may succeed in some seconds; never within a ban."""
    import ccxt

    rate_limited = isinstance(error, (ccxt.DDoSProtection, ccxt.RateLimitExceeded))
    return not rate_limited and not isinstance(error, ccxt.ExchangeError)


def exchange_error(name: str, doing: str, error: BaseException) -> ExchangeError:
    """Describe a failed request in one line.

    Args:
        name: ccxt id.
        doing: the failed action, such as ``loading its markets``.
        error: one of :func:`network_errors`.
    """
    import ccxt

    if isinstance(error, (ccxt.DDoSProtection, ccxt.RateLimitExceeded)):
        kind = "it asks to slow down; wait some minutes"
    elif isinstance(error, ccxt.RequestTimeout):
        kind = "no answer in time"
    elif isinstance(error, ccxt.NetworkError):
        kind = "it cannot be reached"
    else:
        kind = "it refused"
    # ccxt's message names the request; the cause holds the reason.
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    if len(reason) > _MAX_REASON_CHARS:
        reason = reason[:_MAX_REASON_CHARS] + "…"
    return ExchangeError(f"{name}: {doing}: {kind} ({reason})")


def _similar(word: str, known: Iterable[str]) -> str:
    return " or ".join(difflib.get_close_matches(word, known, n=_MAX_SUGGESTIONS))


def _alternatives(symbol: str, markets: Iterable[str]) -> str:
    markets = list(markets)
    letters = _letters(symbol)
    same_letters = [market for market in markets if _letters(market) == letters]
    likely = likely_symbol(symbol)
    if likely in markets:
        same_letters = same_letters or [likely]
    similar = " or ".join(same_letters[:_MAX_SUGGESTIONS]) or _similar(symbol.upper(), markets)
    if similar:
        return f"did you mean {similar}?"
    base = symbol.partition("/")[0]
    same = sorted(market for market in markets if market.startswith(f"{base}/"))[:_MAX_LISTED]
    return f"it has {', '.join(same)}" if same else "see the exchange's own list"


def _letters(symbol: str) -> str:
    return "".join(sign for sign in symbol.casefold() if sign.isalnum())
