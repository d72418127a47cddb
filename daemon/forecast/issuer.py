"""The last step of the path: numbers become forecasts, messages and notes for the books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.candles.cadence import Cadence
from daemon.forecast.accounting import DeferredAccounting
from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.topics import batch_topic, prediction_topic
from daemon.persistence.last_published import LastPublished
from model.core.candle import is_price
from model.forecasts.batch import Common, ForecastBatch, JsonWriter
from model.forecasts.forecast import batch_payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from daemon.candles.window import Window
    from daemon.forecast.accounting import Sinks
    from daemon.forecast.batcher import Ready
    from daemon.mqtt.publisher import Publisher
    from daemon.runtime.clock import Clock
    from model.forecasts.forecast import Market, ModelInfo
    from model.forecasts.outlook import Outlook
    from model.serving import ServedModel, Told

    Floats = npt.NDArray[np.float64]

_BATCH_PART = 100

_FAULTS: Final = {
    "not_a_price": "is not a price",
    "not_an_interval": "has no finite interval",
}
"""What is wrong with a forecast, by the reason it is counted under."""


class InferenceResult(NamedTuple):
    """What the network made of k candles that it ran together.

    Attributes:
        models: which model spoke of each.
        filled: candles of each window that had no trade.
        repaired: candles of each window that had values that were put right.
        lookback: candles in a window.
        started_s: when their flush began, monotonic.
        inference_s: how long the network ran.
        raw: its output, ``[k]``.
        price: the next close that it means, ``[k]``.
        last: the close that it starts from, ``[k]``.
        outlook: what may happen around it.
        out_of_range: share of scaled values outside what the scaler was fitted on, ``[k]``.
    """

    models: Sequence[ModelInfo]
    filled: Sequence[int]
    repaired: Sequence[int]
    lookback: int
    started_s: float
    inference_s: float
    raw: npt.NDArray[np.float32]
    price: Floats
    last: Floats
    outlook: Outlook
    out_of_range: Floats

    @classmethod
    def of(
        cls,
        batch: Sequence[Ready],
        source: tuple[ServedModel, Sequence[Window]],
        times_s: tuple[float, float],
        told: Told,
    ) -> InferenceResult:
        """Put together what a model told.

        Args:
            batch: the candles.
            source: the model, and the windows of its symbols by slot.
            times_s: when their flush began, and how long the network ran.
            told: what it made of them.
        """
        served, windows = source
        started_s, inference_s = times_s
        raw, price, last, outlook, out_of_range = told
        return cls(
            [served.infos[ready.slot] for ready in batch],
            [windows[ready.slot].filled(served.lookback) for ready in batch],
            [windows[ready.slot].repaired(served.lookback) for ready in batch],
            served.lookback,
            started_s,
            inference_s,
            raw,
            price,
            last,
            outlook,
            out_of_range,
        )

    def part(self, which: slice | list[int]) -> InferenceResult:
        """Some of the candles."""
        at = range(len(self.raw))[which] if isinstance(which, slice) else which
        return InferenceResult(
            [self.models[i] for i in at],
            [self.filled[i] for i in at],
            [self.repaired[i] for i in at],
            *self[3:6],
            self.raw[which],
            self.price[which],
            self.last[which],
            self.outlook.part(which),
            self.out_of_range[which],
        )

    def faults(self) -> list[str | None]:
        """Why each of the candles cannot be forecast from these numbers; None where it can."""
        priced = is_price(self.price) & is_price(self.last)
        sound = self.outlook.sound()
        return [
            "not_a_price" if not p else "not_an_interval" if not s else None
            for p, s in zip(priced.tolist(), sound.tolist(), strict=True)
        ]


class Issuer:
    """Publishes each forecast once, and notes that it did.

    Attributes:
        ledger: where it is noted for the books.
        marks: the newest forecast of each symbol, as it is remembered over a restart.
        cadence: how often forecasts of each symbol leave.
        withheld: slots of forecasts that were of no use; whoever learns from forecasts empties it.
        unsound: why the newest forecast of a symbol could not be published, by symbol; the end of
            a sentence that begins with "its forecast".
    """

    def __init__(
        self,
        market: Market,
        publisher: Publisher,
        books: Sinks,
        clock: Clock,
        budget_s: float,
    ) -> None:
        """Prepare the topics of all symbols.

        Args:
            market: what is forecast.
            publisher: takes the finished messages.
            books: accuracy, history and metrics.
            clock: the injected clock.
            budget_s: from the arrival of a candle to its forecast being ready to send.
        """
        self._market = market
        self._publisher = publisher
        self._books = books
        self._clock = clock
        self._budget_s = budget_s
        self.ledger: Final = DeferredAccounting(books)
        self._flushes = 0
        self._batch_topic = batch_topic(market.exchange, market.timeframe.text)
        self._topics: list[str] = []
        self.marks: Final = LastPublished(())
        self.cadence: Final = Cadence(market.timeframe.ms)
        self.withheld: Final[list[int]] = []
        self.unsound: Final[dict[str, str]] = {}
        self.address(market.symbols)

    def address(self, symbols: Sequence[str]) -> None:
        """Prepare the topics of symbols, in the order of their slots."""
        market, frame = self._market, self._market.timeframe.text
        self._topics = [prediction_topic(market.exchange, s, frame) for s in symbols]
        self._writer = JsonWriter(market._replace(symbols=tuple(symbols)))
        self.marks.rename(self._topics)
        self.ledger.forget_all_but(symbols)
        self.unsound.clear()
        self.cadence.forget_all_but(symbols)

    def issue(self, batch: Sequence[Ready], run: InferenceResult) -> list[bytes]:
        """Publish forecasts, but none that is of no use: too old, not a price, or a repetition.

        Nothing of these symbols may be owed to the books.

        Args:
            batch: the candles.
            run: what the network made of them.

        Returns:
            The messages as they were published.
        """
        now_ms = self._clock.wall_ms()
        fit = self._fit(batch, run, now_ms)
        if len(fit) < len(batch):
            batch, run = [batch[at] for at in fit], run.part(fit)
        forecasts = self._forecasts(batch, run, now_ms)
        payloads = self._writer.write(forecasts)
        targets_ms = self._targets_ms(batch)
        self.marks.note([ready.slot for ready in batch], targets_ms)
        self._publish(batch, forecasts, payloads)
        self.ledger.published(forecasts)
        symbols = [ready.candle.symbol for ready in batch]
        self.cadence.left(zip(symbols, targets_ms, strict=True))
        return payloads

    def rehearse(self, batch: Sequence[Ready], run: InferenceResult) -> None:
        """Write what `issue` would publish; nothing leaves and nothing is noted."""
        fit = [at for at, fault in enumerate(run.faults()) if fault is None]
        batch, run = [batch[at] for at in fit], run.part(fit)
        self._writer.write(self._forecasts(batch, run, self._clock.wall_ms()))

    def issue_batch(self, messages: Sequence[bytes], valid_until_ms: int) -> None:
        """Publish the forecasts of a flush once more, together, for whoever wants them all.

        Args:
            messages: as they were published.
            valid_until_ms: the last of them is of use until then, the exchange's time.
        """
        self._flushes += 1
        now_ms = self._clock.wall_ms()
        batch_id = f"{self._market.instance}-{now_ms}-{self._flushes}"
        starts = range(0, len(messages), _BATCH_PART)
        for number, start in enumerate(starts, 1):
            part = messages[start : start + _BATCH_PART]
            self._publisher.offer(
                Outgoing(
                    f"{batch_id}/{number}",
                    self._batch_topic,
                    batch_payload(batch_id, (number, len(starts)), part),
                    qos=0,
                    retain=False,
                    valid_until_ms=valid_until_ms,
                )
            )

    def _fit(self, batch: Sequence[Ready], run: InferenceResult, now_ms: int) -> list[int]:
        """The positions of those that are of use; the others are counted."""
        left = self.marks.left([ready.slot for ready in batch], self._targets_ms(batch))
        expired_ms = now_ms - self._market.timeframe.ms
        knows = self._books.accuracy.knows
        fit = []
        for at, (ready, fault, has_left, filled) in enumerate(
            zip(batch, run.faults(), left, run.filled, strict=True)
        ):
            candle = ready.candle
            if fault is None:
                self.unsound.pop(candle.symbol, None)
            else:
                self.unsound[candle.symbol] = _FAULTS[fault]
            if filled == run.lookback:
                # The market may be none any more: exchanges go silent about one that they delist.
                reason = "untraded"
            elif candle.close_ms <= expired_ms:
                reason = "expired"
            elif fault is not None:
                reason = fault
            # What was published before a restart is never published in other words.
            elif has_left or knows(candle.symbol, candle.close_ms):
                reason = "repeated"
            else:
                fit.append(at)
                continue
            self.withheld.append(ready.slot)
            self._books.metrics.forecasts.count_skipped(reason, 1)
        return fit

    def _targets_ms(self, batch: Sequence[Ready]) -> list[int]:
        step_ms = self._market.timeframe.ms
        return [ready.candle.close_ms + step_ms for ready in batch]

    def _forecasts(
        self, batch: Sequence[Ready], run: InferenceResult, now_ms: int
    ) -> ForecastBatch:
        candles = [ready.candle for ready in batch]
        skills = [self._books.accuracy.skill(candle.symbol) for candle in candles]
        received_s = np.array([candle.received_s for candle in candles])
        ready_s = self._clock.monotonic() - received_s
        columns: list[npt.NDArray[np.floating]] = [
            *(run.last, run.price, run.raw, run.price / run.last - 1.0),
            *np.where(run.outlook.known, run.outlook[3:], 0.0),
            run.out_of_range,
            np.array([0.0 if skill is None else skill.mae_ratio for skill in skills]),
            np.array([0.0 if skill is None else skill.stderr for skill in skills]),
            np.round(1e3 * ready_s, 3),
            np.round(1e3 * (run.started_s - received_s), 3),
        ]
        numbers = np.array(columns, np.float64).T
        return ForecastBatch(
            self._market,
            Common(run.lookback, run.outlook.rules, round(1e3 * run.inference_s, 3), now_ms),
            candles,
            numbers,
            run.outlook.known.tolist(),
            run.outlook.learnt.tolist(),
            run.models,
            run.filled,
            run.repaired,
            skills,
            (ready_s > self._budget_s).tolist(),
        )

    def _publish(
        self, batch: Sequence[Ready], forecasts: ForecastBatch, payloads: Sequence[bytes]
    ) -> None:
        retains, step_ms = self._publisher.retains, self._market.timeframe.ms
        for ready, payload, late in zip(batch, payloads, forecasts.late, strict=True):
            topic, candle = self._topics[ready.slot], ready.candle
            self._publisher.offer(
                Outgoing(
                    topic,
                    topic,
                    payload,
                    1,
                    retains,
                    candle.close_ms + step_ms,
                    candle.received_s,
                    late,
                    is_forecast=True,
                )
            )
