"""Learn from ccxt what an exchange cannot do, before anything is sent to it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Final, NoReturn

from model.core.candle import Timeframe
from model.core.errors import ConfigError, NotOffered

WHAT: Final = {"watchOHLCV": "candle stream", "fetchOHLCV": "candle history"}
"""What ccxt's abilities are called in messages."""

_NEEDED: Final = {"watchOHLCV": ("fetchOHLCV", "watchOHLCV"), "fetchOHLCV": ("fetchOHLCV",)}
"""A window starts from history, so watching needs both."""

_MISREAD: Final = {"ndax": "ccxt takes the closing time of its candles for the opening time"}
"""Exchanges whose candles ccxt reads wrongly by websocket and by REST alike."""

_DERIVATIVES: Final = ("swap", "future", "option")
_REASON_CHARS: Final = 200
_SINCE_MS: Final = 1_700_000_000_000
_ROWS: Final = 10


class _Sent(BaseException):
    """ccxt was about to send something, so it had nothing to object to."""


def check_offer(
    exchange: Any,  # noqa: ANN401 - ccxt's classes are untyped
    symbols: Iterable[str],
    timeframe: str,
    *,
    ability: str,
) -> None:
    """Check everything about an exchange that ccxt knows without asking it.

    What ccxt declares is looked at. Then its methods are called on a copy of the exchange that
    cannot send: what they refuse up to there can never work. Nothing is opened and nothing waits.

    Args:
        exchange: ccxt instance. Without loaded markets, symbols are taken for listed.
        symbols: ccxt symbols.
        timeframe: ccxt timeframe.
        ability: ``watchOHLCV``, which includes the history that it starts from, or ``fetchOHLCV``.

    Raises:
        NotOffered: it lacks candles, the timeframe, or candles of such a symbol, or wants a key;
            or ccxt misreads its candles.
    """
    if exchange.id in _MISREAD:
        msg = f"{exchange.id} cannot be used: {_MISREAD[exchange.id]}; choose another exchange.name"
        raise NotOffered(msg)
    for needed in _NEEDED[ability]:
        if not exchange.has.get(needed):
            msg = f"{exchange.id} has no {WHAT[needed]}; choose another exchange.name"
            raise NotOffered(msg)
    known = list(exchange.timeframes or ())
    if timeframe not in known:
        msg = f"{exchange.id} has no timeframe {timeframe}; allowed: {', '.join(known)}"
        raise NotOffered(msg)
    symbols = list(symbols)
    if not exchange.markets:
        for symbol in symbols:
            _check_kind(exchange, symbol)
    copy = _unconnected(exchange, symbols)
    for symbol in symbols:
        _check_symbol(copy, symbol, timeframe, ability)


def _check_kind(exchange: Any, symbol: str) -> None:  # noqa: ANN401
    """Check that the exchange has markets of a symbol's kind at all."""
    has = exchange.has
    if ":" in symbol:
        if all(has.get(kind) is False for kind in _DERIVATIVES):
            msg = f"{exchange.id} has no derivatives such as {symbol}; spot symbols are BASE/QUOTE"
            raise NotOffered(msg)
    elif has.get("spot") is False:
        msg = (
            f"{exchange.id} has no spot markets such as {symbol}; "
            f"symbols of derivatives are BASE/QUOTE:SETTLE"
        )
        raise NotOffered(msg)


def _check_symbol(copy: Any, symbol: str, timeframe: str, ability: str) -> None:  # noqa: ANN401
    import ccxt

    for needed in _NEEDED[ability]:
        error = _objection(copy, symbol, timeframe, needed)
        if error is None:
            continue
        what = f"{copy.id} has no {WHAT[needed]}"
        if isinstance(error, ccxt.AuthenticationError):
            msg = (
                f"{copy.id} wants an API key for its {WHAT[needed]}, and candlecast has no setting "
                "for one; choose another exchange.name"
            )
            raise NotOffered(msg)
        if allowed := _allowed(copy, symbol, ability):
            msg = f"{what} at {timeframe}; allowed: {', '.join(allowed)}"
            raise NotOffered(msg)
        # What fails at every timeframe in another way may lie in a market that was made up.
        if isinstance(error, ccxt.ExchangeError) and not isinstance(error, ccxt.BadSymbol):
            reason = " ".join(str(error).split())[:_REASON_CHARS]
            msg = f"{what} of {symbol} ({reason}); choose another symbol or exchange.name"
            raise NotOffered(msg)


def _allowed(copy: Any, symbol: str, ability: str) -> list[str]:  # noqa: ANN401
    """Timeframes of fixed duration to which ccxt does not object."""
    return [
        timeframe
        for timeframe in copy.timeframes
        if _is_fixed(timeframe)
        and not any(_objection(copy, symbol, timeframe, needed) for needed in _NEEDED[ability])
    ]


def _is_fixed(timeframe: str) -> bool:
    try:
        Timeframe.parse(timeframe)
    except ConfigError:
        return False
    return True


def _objection(copy: Any, symbol: str, timeframe: str, ability: str) -> Exception | None:  # noqa: ANN401
    """What ccxt raises before it would send the first byte; None if it would send."""
    if ability == "fetchOHLCV":
        call = copy.fetch_ohlcv(symbol, timeframe, _SINCE_MS, _ROWS)
    elif copy.has.get("watchOHLCVForSymbols"):
        call = copy.watch_ohlcv_for_symbols([[symbol, timeframe]])
    else:
        call = copy.watch_ohlcv(symbol, timeframe)
    return _raised(call)


def _raised(call: Coroutine[Any, Any, Any]) -> Exception | None:
    """Run a coroutine until it first waits, without an event loop."""
    try:
        call.send(None)
    except (_Sent, StopIteration):
        return None
    except Exception as error:  # noqa: BLE001 - ccxt may fail in any way over what it does not support
        return error
    finally:
        call.close()
    return None


def _unconnected(exchange: Any, symbols: list[str]) -> Any:  # noqa: ANN401
    """A copy of an exchange, with its markets or made-up ones, that raises where it would send."""

    def send(*_args: Any, **_kwargs: Any) -> NoReturn:  # noqa: ANN401
        raise _Sent

    async def send_later(*_args: Any, **_kwargs: Any) -> NoReturn:  # noqa: ANN401
        raise _Sent

    async def pass_by(*_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401
        """Neither wait for a turn nor load markets."""

    base = type(exchange)
    sending = dict.fromkeys(("open", "client", "watch", "watch_multiple", "spawn"), send)
    waiting = dict.fromkeys(("fetch", "sleep"), send_later)
    passing = dict.fromkeys(("throttle", "load_markets"), pass_by)
    copy = type(base.__name__, (base,), sending | waiting | passing)()
    if exchange.markets:
        copy.set_markets_from_exchange(exchange)
    else:
        copy.set_markets([_made_up(copy, symbol) for symbol in symbols])
    return copy


def _made_up(exchange: Any, symbol: str) -> Any:  # noqa: ANN401
    """A market as ccxt would list it, as far as the symbol tells."""
    pair, _, rest = symbol.partition(":")
    base, _, quote = pair.partition("/")
    settle, *detail = rest.split("-")
    # A dated future is named by its expiry, an option by expiry, strike and C or P.
    kind = {0: "swap", 1: "future"}.get(len(detail), "option") if rest else "spot"
    linear = settle == quote if rest else None
    market = {
        "id": f"{base}{quote}",
        "lowercaseId": f"{base}{quote}".lower(),
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "settle": settle or None,
        "baseId": base,
        "quoteId": quote,
        "settleId": settle or None,
        "type": kind,
        **{each: each == kind for each in ("spot", *_DERIVATIVES)},
        "active": True,
        "contract": bool(rest),
        "linear": linear,
        "inverse": None if linear is None else not linear,
        "subType": None if linear is None else "linear" if linear else "inverse",
        "contractSize": 1.0 if rest else None,
    }
    return exchange.safe_market_structure(market)
