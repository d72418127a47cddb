"""What the status page is told: each symbol as a row, series for its charts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.candles.window import Window
    from model.core.candle import Candle
    from model.forecasts.forecast import Forecast, ForecastRow

FIELDS: Final = (
    *("symbol", "stale", "open_ms", "open", "high", "low", "close"),
    *("target_ms", "last", "predicted", "lower", "upper", "valid_until_ms"),
    *("ready_ms", "late", "ratio", "stderr", "n"),
)
"""What a row holds, in this order. ``open_ms`` to ``close``: the newest candle; ``target_ms``: when
the candle that is forecast opens; ``last``: the close that the forecast starts from; prices in
quote currency, the rest in the unit of its name."""

Row = list[Any]

_UNKNOWN: Final = (None, None, False)

_NO_FORECAST: Final = (None,) * (len(FIELDS) - FIELDS.index("target_ms"))
_NO_CANDLE: Final = (None,) * (FIELDS.index("target_ms") - FIELDS.index("open_ms"))


def row(symbol: str, window: Window, forecast: Forecast | None, *, stale: bool) -> Row:
    """One symbol at a glance; None where there is nothing to tell."""
    newest = window.newest
    candle = _NO_CANDLE if newest is None else (newest.open_ms, *map(_short, newest.ohlcv[:4]))
    if forecast is None:
        return [symbol, stale, *candle, *_NO_FORECAST]
    interval, skill = forecast.interval, forecast.skill
    return [
        symbol,
        stale,
        *candle,
        forecast.candle_close_ms,
        _short(forecast.last_close),
        _short(forecast.predicted_close),
        *((None, None) if interval is None else (_short(interval.lower), _short(interval.upper))),
        forecast.valid_until_ms,
        round(forecast.latency.ready_ms, 3),
        forecast.late,
        *((None, None, 0) if skill is None else (round(skill[0], 5), round(skill[1], 5), skill.n)),
    ]


def _short(price: float) -> float:
    """Nine significant digits: more than a screen can show, half as long."""
    return float(f"{price:.9g}")


class Frame(NamedTuple):
    """One step of what watchers are told, as server-sent events.

    Attributes:
        number: consecutive, from 1.
        changes: what whoever has seen the step before must be told.
    """

    number: int
    changes: bytes


class Rows:
    """Every symbol as watchers know it, and which of them has changed.

    A watcher that has seen the step before gets the changes; every other one gets everything.
    """

    def __init__(self) -> None:
        """Start without any symbol."""
        self._rows: dict[str, Row] = {}
        self._known: dict[str, tuple[Forecast | None, Candle | None, bool]] = {}
        self._gone = False
        self._whole: tuple[int, bytes] = (0, b"")
        self._state = b""
        self.frame = Frame(0, b"")

    def update(
        self,
        windows: Iterable[Window],
        newest: Mapping[str, Forecast],
        stale: frozenset[str],
    ) -> list[Row]:
        """Look at some symbols; returns the rows of those that changed."""
        changed = []
        for window in windows:
            symbol = window.symbol
            forecast, is_stale = newest.get(symbol), symbol in stale
            known = self._known.get(symbol, _UNKNOWN)
            # The objects themselves are compared: neither is ever changed in place.
            if (
                known[0] is forecast
                and known[1] is window.newest
                and known[2] is is_stale
                and known is not _UNKNOWN
            ):
                continue
            self._known[symbol] = forecast, window.newest, is_stale
            self._rows[symbol] = row(symbol, window, forecast, stale=is_stale)
            changed.append(self._rows[symbol])
        return changed

    def keep(self, symbols: Iterable[str]) -> None:
        """Forget all but these; if there was any other, everybody is told everything anew."""
        for symbol in self._rows.keys() - symbols:
            del self._rows[symbol], self._known[symbol]
            self._gone = True

    def step(self, changed: Sequence[Row], state: Mapping[str, object] | None) -> None:
        """Make the next frame of what changed; nothing happens when nothing did."""
        if state is not None:
            self._state = event("state", state)
        elif not changed and not self._gone:
            return
        rows = event("rows", changed) if changed else b""
        if self._gone:
            rows = self._everything()
        self._gone = False
        self.frame = Frame(self.frame.number + 1, rows + (b"" if state is None else self._state))

    def after(self, seen: int) -> bytes:
        """What a watcher must be told who has seen the frame of that number."""
        if seen and seen == self.frame.number - 1:
            return self.frame.changes
        if self._whole[0] != self.frame.number:
            self._whole = self.frame.number, self._everything() + self._state
        return self._whole[1]

    def _everything(self) -> bytes:
        return event("all", {"fields": FIELDS, "rows": list(self._rows.values())})


def event(name: str, data: object) -> bytes:
    r"""One server-sent event.

    >>> event("state", {"ready": True})
    b'event: state\ndata: {"ready":true}\n\n'
    """
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def series(
    window: Window, step_ms: int, forecasts: Iterable[ForecastRow], limit: int
) -> dict[str, Any]:
    """A symbol's recent past, as its chart draws it.

    Args:
        window: its candles.
        step_ms: the timeframe.
        forecasts: those that are known of the same span.
        limit: candles at most.

    Returns:
        ``candles``: rows of opening time (Unix ms), open, high, low, close, ascending;
        ``forecasts``: rows of the target's opening time, predicted close, lower, upper.
    """
    ohlc = window.ohlcv()[-limit:, :4].tolist()
    start_ms = (window.next_open_ms or 0) - len(ohlc) * step_ms
    return {
        "candles": [[start_ms + at * step_ms, *prices] for at, prices in enumerate(ohlc)],
        "forecasts": [
            [f.candle_close_ms, f.predicted_close, f.lower, f.upper]
            for f in forecasts
            if f.candle_close_ms >= start_ms
        ],
    }
