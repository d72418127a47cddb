"""Define what one run of the network gives for a batch of candles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from model.core.candle import is_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from daemon.forecast.batcher import Ready
    from daemon.forecast.symbol_table import SymbolTable
    from model.forecasts.forecast import ModelInfo
    from model.forecasts.outlook import Outlook
    from model.serving import ModelOutput

    Floats = npt.NDArray[np.float64]


class InferenceResult(NamedTuple):
    """What the network gave for k candles that it ran together; row i is of candle i.

    Attributes:
        batch: the candles.
        models: which model forecast each.
        filled: candles of each window that had no trade.
        repaired: candles of each window with values that were put right.
        lookback: candles in a window.
        started_s: when their flush began, monotonic.
        inference_s: how long the network ran.
        raw: its output, ``[k]``.
        price: the next close that it means, ``[k]``.
        last_close: the close that it starts from, ``[k]``.
        outlook: interval and probabilities.
        out_of_range: share of scaled values outside what the scaler was fitted on, ``[k]``.
    """

    batch: Sequence[Ready]
    models: Sequence[ModelInfo]
    filled: Sequence[int]
    repaired: Sequence[int]
    lookback: int
    started_s: float
    inference_s: float
    raw: npt.NDArray[np.float32]
    price: Floats
    last_close: Floats
    outlook: Outlook
    out_of_range: Floats

    @classmethod
    def collect(
        cls,
        batch: Sequence[Ready],
        table: SymbolTable,
        output: ModelOutput,
        *,
        started_s: float,
        inference_s: float,
    ) -> Self:
        """Join the output of the served model with what the windows tell.

        Args:
            batch: the candles.
            table: their windows and the served model.
            output: what it gave for them.
            started_s: when their flush began, monotonic.
            inference_s: how long the network ran.
        """
        served, windows = table.served, table.windows
        return cls(
            batch=batch,
            models=[served.infos[ready.slot] for ready in batch],
            filled=[windows[ready.slot].count_untraded(served.lookback) for ready in batch],
            repaired=[windows[ready.slot].count_repaired(served.lookback) for ready in batch],
            lookback=served.lookback,
            started_s=started_s,
            inference_s=inference_s,
            raw=output.raw,
            price=output.price,
            last_close=output.last_close,
            outlook=output.outlook,
            out_of_range=output.out_of_range,
        )

    def select(self, which: slice | list[int]) -> Self:
        """Some of the candles."""
        rows = range(len(self.raw))[which] if isinstance(which, slice) else which
        return self._replace(
            batch=[self.batch[row] for row in rows],
            models=[self.models[row] for row in rows],
            filled=[self.filled[row] for row in rows],
            repaired=[self.repaired[row] for row in rows],
            raw=self.raw[which],
            price=self.price[which],
            last_close=self.last_close[which],
            outlook=self.outlook.part(which),
            out_of_range=self.out_of_range[which],
        )

    def faults(self) -> list[str | None]:
        """Why each candle cannot be forecast from these numbers; None where it can."""
        priced = is_price(self.price) & is_price(self.last_close)
        sound = self.outlook.sound()
        return [
            "not_a_price" if not p else "not_an_interval" if not s else None
            for p, s in zip(priced.tolist(), sound.tolist(), strict=True)
        ]
