"""Check with ccxt what an exchange supports, without sending a request."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Final, NoReturn

from daemon.exchange.source import DERIVATIVES, market_fields
from model.core.candle import Timeframe
from model.core.errors import ConfigError, NotOffered

CAPABILITY_NAMES: Final = {"watchOHLCV": "candle stream", "fetchOHLCV": "candle history"}
"""ccxt's capabilities as messages name them."""

_REQUIRED: Final = {"watchOHLCV": ("fetchOHLCV", "watchOHLCV"), "fetchOHLCV": ("fetchOHLCV",)}
"""A window is filled from history first, so watching requires both."""

_MISREAD_EXCHANGES: Final = {
    "ndax": "ccxt takes the closing time of its candles for the opening time"
}
"""Exchanges whose candles ccxt reads wrongly, by websocket and by REST, and how."""

_MAX_REASON_CHARS: Final = 200
_PROBE_SINCE_MS: Final = 1_700_000_000_000
_PROBE_ROWS: Final = 10


class _SendAttempt(BaseException):
    """ccxt was about to send a request, so it supports the call."""


def check_capability(
    exchange: Any,  # noqa: ANN401 - ccxt's classes are untyped
    symbols: Iterable[str],
    timeframe: str,
    *,
    capability: str,
) -> None:
    """Check that an exchange supports candles of some symbols, as far as ccxt knows.

    First the capabilities are read that ccxt declares. Then ccxt's methods are called on a copy of
    the exchange that cannot send: a call that fails before it sends can never work. No connection
    is opened and nothing waits.

    Args:
        exchange: ccxt instance. Without loaded markets, all symbols count as listed.
        symbols: ccxt symbols.
        timeframe: ccxt timeframe.
        capability: ``watchOHLCV``, which includes ``fetchOHLCV``, or ``fetchOHLCV`` alone.

    Raises:
        NotOffered: it has no candles, not this timeframe, or none of such a symbol; it requires an
            API key; or ccxt reads its candles wrongly.
    """
    if (reason := _MISREAD_EXCHANGES.get(exchange.id)) is not None:
        msg = f"{exchange.id} cannot be used: {reason}; choose another exchange.name"
        raise NotOffered(msg)
    for required in _REQUIRED[capability]:
        if not exchange.has.get(required):
            msg = f"{exchange.id} has no {CAPABILITY_NAMES[required]}; choose another exchange.name"
            raise NotOffered(msg)
    timeframes = list(exchange.timeframes or ())
    if timeframe not in timeframes:
        msg = f"{exchange.id} has no timeframe {timeframe}; allowed: {', '.join(timeframes)}"
        raise NotOffered(msg)
    symbols = list(symbols)
    if not exchange.markets:
        for symbol in symbols:
            _check_market_type(exchange, symbol)
    offline = _offline_copy(exchange, symbols)
    for symbol in symbols:
        _check_symbol(offline, symbol, timeframe, capability)


def _check_market_type(exchange: Any, symbol: str) -> None:  # noqa: ANN401
    """Check that the exchange has markets of a symbol's type at all."""
    has = exchange.has
    if ":" in symbol:
        if all(has.get(kind) is False for kind in DERIVATIVES):
            msg = f"{exchange.id} has no derivatives such as {symbol}; spot symbols are BASE/QUOTE"
            raise NotOffered(msg)
    elif has.get("spot") is False:
        msg = (
            f"{exchange.id} has no spot markets such as {symbol}; "
            f"symbols of derivatives are BASE/QUOTE:SETTLE"
        )
        raise NotOffered(msg)


def _check_symbol(offline: Any, symbol: str, timeframe: str, capability: str) -> None:  # noqa: ANN401
    import ccxt

    for required in _REQUIRED[capability]:
        error = _error_before_sending(offline, symbol, timeframe, required)
        if error is None:
            continue
        prefix = f"{offline.id} has no {CAPABILITY_NAMES[required]}"
        if isinstance(error, ccxt.AuthenticationError):
            msg = (
                f"{offline.id} wants an API key for its {CAPABILITY_NAMES[required]}, and "
                "candlecast has no setting for one; choose another exchange.name"
            )
            raise NotOffered(msg)
        if allowed := _allowed_timeframes(offline, symbol, capability):
            msg = f"{prefix} at {timeframe}; allowed: {', '.join(allowed)}"
            raise NotOffered(msg)
        # Other errors at every timeframe may be caused by the made-up market.
        if isinstance(error, ccxt.ExchangeError) and not isinstance(error, ccxt.BadSymbol):
            reason = " ".join(str(error).split())[:_MAX_REASON_CHARS]
            msg = f"{prefix} of {symbol} ({reason}); choose another symbol or exchange.name"
            raise NotOffered(msg)


def _allowed_timeframes(offline: Any, symbol: str, capability: str) -> list[str]:  # noqa: ANN401
    """Return the timeframes of fixed duration that ccxt supports."""
    return [
        timeframe
        for timeframe in offline.timeframes
        if _has_fixed_duration(timeframe)
        and not any(
            _error_before_sending(offline, symbol, timeframe, required)
            for required in _REQUIRED[capability]
        )
    ]


def _has_fixed_duration(timeframe: str) -> bool:
    try:
        Timeframe.parse(timeframe)
    except ConfigError:
        return False
    return True


def _error_before_sending(
    offline: Any,  # noqa: ANN401
    symbol: str,
    timeframe: str,
    capability: str,
) -> Exception | None:
    """Return what ccxt raises before it sends the first byte; None if it would send."""
    if capability == "fetchOHLCV":
        call = offline.fetch_ohlcv(symbol, timeframe, _PROBE_SINCE_MS, _PROBE_ROWS)
    elif offline.has.get("watchOHLCVForSymbols"):
        call = offline.watch_ohlcv_for_symbols([[symbol, timeframe]])
    else:
        call = offline.watch_ohlcv(symbol, timeframe)
    return _error_until_first_wait(call)


def _error_until_first_wait(call: Coroutine[Any, Any, Any]) -> Exception | None:
    """Run a coroutine until it first waits, without an event loop; return its error."""
    try:
        call.send(None)
    except (_SendAttempt, StopIteration):
        return None
    except Exception as error:  # noqa: BLE001 - ccxt may fail in any way over what it does not support
        return error
    finally:
        call.close()
    return None


def _offline_copy(exchange: Any, symbols: list[str]) -> Any:  # noqa: ANN401
    """Copy an exchange, with its markets or made-up ones; the copy raises where it would send."""

    def send(*_args: Any, **_kwargs: Any) -> NoReturn:  # noqa: ANN401
        raise _SendAttempt

    async def send_async(*_args: Any, **_kwargs: Any) -> NoReturn:  # noqa: ANN401
        raise _SendAttempt

    async def skip(*_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401
        """Neither wait nor load markets."""

    base = type(exchange)
    senders = dict.fromkeys(("open", "client", "watch", "watch_multiple", "spawn"), send)
    async_senders = dict.fromkeys(("fetch", "sleep"), send_async)
    skipped = dict.fromkeys(("throttle", "load_markets"), skip)
    offline = type(base.__name__, (base,), senders | async_senders | skipped)()
    if exchange.markets:
        offline.set_markets_from_exchange(exchange)
    else:
        offline.set_markets(
            [offline.safe_market_structure(market_fields(symbol)) for symbol in symbols]
        )
    return offline
