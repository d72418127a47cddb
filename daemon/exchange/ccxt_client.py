"""The exchange as ccxt sees it: found by name, pointed elsewhere, and its refusals in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from daemon.exchange.capabilities import check_offer
from daemon.exchange.volume_units import choose_rest_volume
from daemon.runtime.forward_proxy import proxied
from daemon.runtime.gc_control import no_gc
from model.core.errors import ConfigError, ExchangeError, NotOffered
from model.core.symbol_hint import likely_symbol

_ORIGIN: Final = re.compile(r"^(https?|wss?)://[^/?#]*", re.IGNORECASE)
_REASON_CHARS: Final = 200
_LISTED: Final = 12
_NEAR: Final = 3


def make_exchange(
    name: str,
    endpoint_rest: str | None = None,
    endpoint_ws: str | None = None,
    *,
    symbols: Iterable[str] = (),
    wrap: Callable[[type[Any]], type[Any]] | None = None,
) -> Any:  # noqa: ANN401 - ccxt's classes are untyped
    """Make a rate-limited ccxt.pro instance; it connects when first asked for something.

    It goes through the proxy that the environment names.

    Args:
        name: ccxt id.
        endpoint_rest: scheme, host and port that replace those of every REST address.
        endpoint_ws: the same for every websocket address.
        symbols: what will be asked for; only their kinds of markets are loaded, where ccxt
            leaves the choice. None of them: all kinds.
        wrap: turns the exchange's class into the subclass to instantiate.

    Raises:
        ConfigError: ccxt.pro knows no such exchange.
    """
    check_exchange(name)
    import ccxt.pro

    from daemon.exchange.bounded import bounded

    base = proxied(bounded(getattr(ccxt.pro, name)))
    exchange = (wrap(base) if wrap else base)({"enableRateLimit": True})
    exchange.urls = override_hosts(exchange.urls, endpoint_rest, endpoint_ws)
    choose_rest_volume(exchange)
    _choose_markets(exchange, set(symbols))
    return exchange


def _choose_markets(exchange: Any, symbols: set[str]) -> None:  # noqa: ANN401
    """Leave out the kinds of markets that no symbol is of."""
    options = exchange.options.get("fetchMarkets")
    kinds = options.get("types") if isinstance(options, dict) else None
    if not isinstance(kinds, list) or not symbols:
        return
    unwanted = set.intersection(*map(_other_kinds, symbols))
    if wanted := [kind for kind in kinds if kind not in unwanted]:
        options["types"] = wanted


def _other_kinds(symbol: str) -> set[str]:
    """Kinds of markets, by any exchange's name in ccxt, that a symbol cannot be of."""
    pair, _, settle = symbol.partition(":")
    if not settle:
        return {"linear", "inverse", "swap", "future", "contract", "option", "stock"}
    currency, *detail = settle.split("-")
    base = pair.partition("/")[0]
    # An option is named by expiry, strike and C or P; a dated future by its expiry alone.
    other = set() if len(detail) > 1 else {"option"}
    return {"spot", "stock", "linear" if currency == base else "inverse"} | other


@cache
def _ccxt_pro() -> Any:  # noqa: ANN401
    # Cached, for whatever exists at the end of `uncollected` is never collected: doing so for each
    # new connection kept the old ones.
    with no_gc():
        import ccxt.pro  # takes a second
    return ccxt.pro


def check_exchange(name: str) -> None:
    """Check that ccxt can watch an exchange of that name.

    Raises:
        ConfigError: it cannot; near names are listed.
    """
    names = _ccxt_pro().exchanges
    if name not in names:
        near = _near(name, names) or f"one of {', '.join(names)}"
        msg = f"exchange.name: ccxt cannot watch an exchange {name!r}; did you mean {near}?"
        raise ConfigError(msg)


def override_hosts(urls: Any, rest: str | None, ws: str | None) -> Any:  # noqa: ANN401 - nested as ccxt likes
    """Replace scheme, host and port of every address in a nest of dicts and lists; keep the paths.

    Addresses whose scheme is ws or wss go to ``ws``, the other ones to ``rest``; None keeps them.
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


def check_market(exchange: Any, symbols: Iterable[str], timeframe: str, *, ability: str) -> None:  # noqa: ANN401
    """Check that an exchange whose markets are loaded can do what is asked of it.

    Args:
        exchange: ccxt instance.
        symbols: ccxt symbols.
        timeframe: ccxt timeframe.
        ability: ``watchOHLCV`` or ``fetchOHLCV``.

    Raises:
        NotOffered: see `check_offer`, or it does not list a symbol; near ones are named.
    """
    symbols = list(symbols)
    for symbol in symbols:
        if symbol not in exchange.markets:
            msg = f"{exchange.id} has no symbol {symbol}; {_alternatives(symbol, exchange.markets)}"
            raise NotOffered(msg)
    check_offer(exchange, symbols, timeframe, ability=ability)


def network_errors() -> tuple[type[Exception], ...]:
    """What asking an exchange can raise without the program being wrong."""
    import aiohttp
    import ccxt

    return (ccxt.BaseError, aiohttp.ClientError, OSError)


def is_transient(error: BaseException) -> bool:
    """Whether asking again in some seconds may help; never so while the exchange bans us."""
    import ccxt

    told_to_stop = isinstance(error, (ccxt.DDoSProtection, ccxt.RateLimitExceeded))
    return not told_to_stop and not isinstance(error, ccxt.ExchangeError)


def exchange_error(name: str, doing: str, error: BaseException) -> ExchangeError:
    """One clear line about an exchange that did not answer as hoped.

    Args:
        name: ccxt id.
        doing: what was being done, e.g. ``loading its markets``.
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
    # ccxt names the request and keeps what went wrong as the cause.
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    if len(reason) > _REASON_CHARS:
        reason = reason[:_REASON_CHARS] + "…"
    return ExchangeError(f"{name}: {doing}: {kind} ({reason})")


def _near(word: str, known: Iterable[str]) -> str:
    return " or ".join(difflib.get_close_matches(word, known, n=_NEAR))


def _alternatives(symbol: str, markets: Iterable[str]) -> str:
    markets = list(markets)
    letters = _letters(symbol)
    spelt_otherwise = [market for market in markets if _letters(market) == letters]
    likely = likely_symbol(symbol)
    if likely in markets:
        spelt_otherwise = spelt_otherwise or [likely]
    near = " or ".join(spelt_otherwise[:_NEAR]) or _near(symbol.upper(), markets)
    if near:
        return f"did you mean {near}?"
    base = symbol.partition("/")[0]
    same = sorted(market for market in markets if market.startswith(f"{base}/"))[:_LISTED]
    return f"it has {', '.join(same)}" if same else "see the exchange's own list"


def _letters(symbol: str) -> str:
    return "".join(sign for sign in symbol.casefold() if sign.isalnum())
