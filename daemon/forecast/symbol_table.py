"""Hold the window, the slot and the served model's progress of every symbol. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from daemon.candles.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.core.candle import Candle, Timeframe
    from model.serving import ServedModel


class SymbolTable:
    """Which symbols are forecast, and by which model.

    A slot is a symbol's position: in `windows` and in every array of the served model. Windows
    beyond the served model's symbols are pending: they are filled, and nothing is forecast from
    them until `replace_model`.

    Attributes:
        timeframe: of the candles.
        served: the model that forecasts.
        windows: by slot; the served model's symbols first, in its order, then pending ones.
        slots: the slot of each symbol.
        derived: by slot of the served model, the window revision that its features include; -1
            where they have to be computed anew.
        tried: slots whose forecasts by this model passed `model.serving_check.faults`.
        faults: by slot, what that check found wrong.
    """

    def __init__(
        self, *, served: ServedModel, symbols: Sequence[str], timeframe: Timeframe, capacity: int
    ) -> None:
        """Create empty windows.

        Args:
            served: the model, for the same symbols in the same order.
            symbols: ccxt symbols.
            timeframe: of the candles.
            capacity: candles a window holds: warm-up of the features + lookback.
        """
        self.timeframe = timeframe
        self._capacity = capacity
        self.served = served
        self.windows: Sequence[Window] = []
        self.slots: dict[str, int] = {}
        self.derived = [-1] * len(symbols)
        self.tried: set[int] = set()
        self.faults: dict[int, str] = {}
        self.add_pending(symbols)

    def add_pending(self, symbols: Sequence[str]) -> list[Window]:
        """Append empty windows of further symbols."""
        first = len(self.windows)
        added = [Window(symbol, self.timeframe, self._capacity) for symbol in symbols]
        self.windows = [*self.windows, *added]
        self.slots |= {symbol: slot for slot, symbol in enumerate(symbols, first)}
        return added

    def discard_pending(self) -> None:
        """Remove the windows that nothing is forecast from."""
        for window in self.windows[len(self.derived) :]:
            del self.slots[window.symbol]
        self.windows = self.windows[: len(self.derived)]

    def is_forecast(self, slot: int) -> bool:
        """Whether the served model forecasts this symbol; False for a pending one."""
        return slot < len(self.derived)

    def is_derived(self, slot: int) -> bool:
        """Whether the model's features include all that the window holds."""
        return self.derived[slot] == self.windows[slot].revision

    def slot_awaiting(self, candle: Candle) -> int | None:
        """The symbol's slot if its features are ready for just this candle to come next."""
        slot = self.slots.get(candle.symbol)
        if slot is None or not self.is_forecast(slot):
            return None
        window = self.windows[slot]
        ready = window.is_complete and self.is_derived(slot)
        return slot if ready and window.next_open_ms == candle.open_ms else None

    def untried_slots(self) -> list[int]:
        """Slots with a whole window and a fitted scaler whose forecasts were not checked."""
        fitted = self.served.is_fitted(np.arange(len(self.derived))).tolist()
        return [
            slot
            for slot, is_fitted in enumerate(fitted)
            if is_fitted and self.windows[slot].is_complete and slot not in self.tried
        ]

    def note_tried(self, slots: Iterable[int], faults: dict[int, str]) -> None:
        """Store the result of a check: what is wrong with these slots' forecasts, if anything."""
        passed = [slot for slot in slots if slot not in faults]
        self.tried.update(passed)
        for slot in passed:
            self.faults.pop(slot, None)
        self.faults |= faults

    def replace_model(
        self,
        served: ServedModel,
        windows: Sequence[Window],
        derived: list[int],
        tried: Iterable[int],
    ) -> None:
        """Forecast by another model; arguments as `Pipeline.replace_model`."""
        self.served = served
        self.windows = list(windows)
        self.slots = {window.symbol: slot for slot, window in enumerate(windows)}
        self.derived = derived
        self.tried, self.faults = set(tried), {}
