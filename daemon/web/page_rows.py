"""Build the rows, series and server-sent events of the status page. Pure."""

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
"""The fields of a row, in this order. ``open_ms`` to ``close``: the newest candle; ``target_ms``:
when the candle that is forecast opens; ``last``: the close that the forecast starts from. Prices
are in quote currency, other values in the unit that their name ends with."""

Row = list[Any]

_NEVER_SENT: Final = (None, None, False)
"""State of a symbol that has no row yet."""

_NO_FORECAST: Final = (None,) * (len(FIELDS) - FIELDS.index("target_ms"))
_NO_CANDLE: Final = (None,) * (FIELDS.index("target_ms") - FIELDS.index("open_ms"))


def row(symbol: str, window: Window, forecast: Forecast | None, *, stale: bool) -> Row:
    """Return the row of a symbol; None where a value does not exist."""
    newest = window.newest
    candle = (
        _NO_CANDLE if newest is None else (newest.open_ms, *map(_round_price, newest.ohlcv[:4]))
    )
    if forecast is None:
        return [symbol, stale, *candle, *_NO_FORECAST]
    interval, skill = forecast.interval, forecast.skill
    return [
        symbol,
        stale,
        *candle,
        forecast.candle_close_ms,
        _round_price(forecast.last_close),
        _round_price(forecast.predicted_close),
        *(
            (None, None)
            if interval is None
            else (_round_price(interval.lower), _round_price(interval.upper))
        ),
        forecast.valid_until_ms,
        round(forecast.latency.ready_ms, 3),
        forecast.late,
        *((None, None, 0) if skill is None else (round(skill[0], 5), round(skill[1], 5), skill.n)),
    ]


def _round_price(price: float) -> float:
    """Keep nine significant digits: more than the page shows, at half the length in JSON."""
    return float(f"{price:.9g}")


class Frame(NamedTuple):
    """One update for the browsers, as server-sent events.

    Attributes:
        number: consecutive, from 1.
        events: for a client that has the frame before.
    """

    number: int
    events: bytes


class RowTable:
    """The rows of all symbols, and the events that bring a client up to date.

    A client that has the previous frame gets the changes; any other client gets all rows.

    Attributes:
        frame: the newest frame.
    """

    def __init__(self) -> None:
        """Start without symbols."""
        self._rows: dict[str, Row] = {}
        # What each row was built from: forecast, newest candle, stale.
        self._sources: dict[str, tuple[Forecast | None, Candle | None, bool]] = {}
        # Whether symbols were removed since the last frame.
        self._has_removals = False
        # All events for a client without the previous frame: number of the frame, and bytes.
        self._snapshot: tuple[int, bytes] = (0, b"")
        # The last event of kind ``state``.
        self._state = b""
        self.frame = Frame(0, b"")

    def update(
        self,
        windows: Iterable[Window],
        newest: Mapping[str, Forecast],
        stale: frozenset[str],
    ) -> list[Row]:
        """Rebuild the rows of some symbols; return those that changed."""
        changed = []
        for window in windows:
            symbol = window.symbol
            forecast, is_stale = newest.get(symbol), symbol in stale
            sources = self._sources.get(symbol, _NEVER_SENT)
            # Compared by identity: forecasts and candles are never changed in place.
            if (
                sources[0] is forecast
                and sources[1] is window.newest
                and sources[2] is is_stale
                and sources is not _NEVER_SENT
            ):
                continue
            self._sources[symbol] = forecast, window.newest, is_stale
            self._rows[symbol] = row(symbol, window, forecast, stale=is_stale)
            changed.append(self._rows[symbol])
        return changed

    def remove_all_but(self, symbols: Iterable[str]) -> None:
        """Remove other symbols; if there was any, the next frame sends all rows to every client."""
        for symbol in self._rows.keys() - symbols:
            del self._rows[symbol], self._sources[symbol]
            self._has_removals = True

    def make_frame(self, changed: Sequence[Row], state: Mapping[str, object] | None) -> None:
        """Make the next frame from changed rows and state; none if nothing changed."""
        if state is not None:
            self._state = event("state", state)
        elif not changed and not self._has_removals:
            return
        rows = event("rows", changed) if changed else b""
        if self._has_removals:
            rows = self._all_rows()
        self._has_removals = False
        self.frame = Frame(self.frame.number + 1, rows + (b"" if state is None else self._state))

    def events_after(self, seen: int) -> bytes:
        """Return the events for a client that last saw frame ``seen``; 0 for none."""
        if seen and seen == self.frame.number - 1:
            return self.frame.events
        if self._snapshot[0] != self.frame.number:
            self._snapshot = self.frame.number, self._all_rows() + self._state
        return self._snapshot[1]

    def _all_rows(self) -> bytes:
        return event("all", {"fields": FIELDS, "rows": list(self._rows.values())})


def event(name: str, data: object) -> bytes:
    r"""Encode one server-sent event.

    >>> event("state", {"ready": True})
    b'event: state\ndata: {"ready":true}\n\n'
    """
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def series(
    window: Window, step_ms: int, forecasts: Iterable[ForecastRow], limit: int
) -> dict[str, Any]:
    """Return the recent candles and forecasts of a symbol, for its chart.

    Args:
        window: its candles.
        step_ms: length of a candle.
        forecasts: of the same span or longer.
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
