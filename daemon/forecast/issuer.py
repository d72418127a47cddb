"""Turn inference results into forecast messages and hand each to the publisher once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.topics import batch_topic, prediction_topic
from daemon.persistence.last_published import LastPublished
from model.forecasts.batch import Columns, Common, ForecastBatch, JsonWriter
from model.forecasts.forecast import batch_payload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.forecast.batcher import Ready
    from daemon.forecast.results import InferenceResult
    from daemon.mqtt.publisher import Publisher
    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy
    from model.forecasts.forecast import Market
    from model.forecasts.outlook import Outlook

MAX_BATCH_MESSAGE_SIZE: Final = 100
"""Forecasts in one message of the batch topic."""

_FAULTS: Final = {
    "not_a_price": "is not a price",
    "not_an_interval": "has no finite interval",
}
"""What is wrong with a forecast, by the reason it is counted under."""


class Issued(NamedTuple):
    """What became of an inference result.

    Attributes:
        payloads: the messages as they were published.
        forecasts: what they say.
        withheld: why forecasts were not published, by slot.
    """

    payloads: list[bytes]
    forecasts: ForecastBatch
    withheld: Mapping[int, str]


class Issuer:
    """Publishes each forecast once.

    Attributes:
        last_published: the newest forecast of each symbol; survives a restart.
        unsound: why the newest forecast of a symbol could not be published, by symbol; the end of
            a sentence that begins with "its forecast".
    """

    def __init__(
        self,
        *,
        market: Market,
        publisher: Publisher,
        accuracy: Accuracy,
        clock: Clock,
        budget_s: float,
    ) -> None:
        """Prepare the topics of all symbols.

        Args:
            market: what is forecast.
            publisher: takes the finished messages.
            accuracy: has the skill that messages state.
            clock: the injected clock.
            budget_s: from the arrival of a candle to its forecast being ready to send.
        """
        self._market = market
        self._publisher = publisher
        self._accuracy = accuracy
        self._clock = clock
        self._budget_s = budget_s
        # Numbers the batch messages of this process.
        self._flushes = 0
        self._batch_topic = batch_topic(market.exchange, market.timeframe.text)
        # By slot.
        self._topics: list[str] = []
        self.last_published: Final = LastPublished(())
        self.unsound: Final[dict[str, str]] = {}
        self.set_symbols(market.symbols)

    def set_symbols(self, symbols: Sequence[str]) -> None:
        """Prepare the topics of symbols, in the order of their slots."""
        self._topics = [self._topic(symbol) for symbol in symbols]
        self._writer = JsonWriter(self._market._replace(symbols=tuple(symbols)))
        self.last_published.set_names(self._topics)
        self.learn_published()
        self.unsound.clear()

    def learn_published(self) -> None:
        """Learn from the accuracy, which the history restores, what was published before."""
        targets_ms = self._accuracy.newest_targets_ms()
        self.last_published.merge({self._topic(s): ms for s, ms in targets_ms.items()})

    def publish_forecasts(self, result: InferenceResult) -> Issued:
        """Publish forecasts, except those that are too old, not a price, or a repetition.

        Accounting for these symbols must be settled, since the messages state their skill.
        """
        now_ms = self._clock.wall_ms()
        withheld = self._withheld(result, now_ms)
        if withheld:
            batch = result.batch
            result = result.select([r for r in range(len(batch)) if batch[r].slot not in withheld])
        forecasts = self._forecasts(result, now_ms)
        payloads = self._writer.write(forecasts)
        self.last_published.record(
            [ready.slot for ready in result.batch], self._targets_ms(result.batch)
        )
        self._offer(result.batch, forecasts, payloads)
        return Issued(payloads, forecasts, withheld)

    def dry_run(self, result: InferenceResult) -> None:
        """Write what `publish_forecasts` would publish; nothing leaves and nothing is noted."""
        sound = [row for row, fault in enumerate(result.faults()) if fault is None]
        self._writer.write(self._forecasts(result.select(sound), self._clock.wall_ms()))

    def publish_batch(self, payloads: Sequence[bytes], valid_until_ms: int) -> None:
        """Publish the forecasts of a flush again, joined, on the batch topic.

        Args:
            payloads: as they were published.
            valid_until_ms: end of validity of the last of them, the exchange's time.
        """
        self._flushes += 1
        now_ms = self._clock.wall_ms()
        batch_id = f"{self._market.instance}-{now_ms}-{self._flushes}"
        starts = range(0, len(payloads), MAX_BATCH_MESSAGE_SIZE)
        for number, start in enumerate(starts, 1):
            part = payloads[start : start + MAX_BATCH_MESSAGE_SIZE]
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

    def _topic(self, symbol: str) -> str:
        return prediction_topic(self._market.exchange, symbol, self._market.timeframe.text)

    def _withheld(self, result: InferenceResult, now_ms: int) -> dict[int, str]:
        """Why forecasts must not be published, by slot."""
        batch = result.batch
        published = self.last_published.was_published(
            [ready.slot for ready in batch], self._targets_ms(batch)
        )
        expired_ms = now_ms - self._market.timeframe.ms
        withheld = {}
        for ready, fault, is_published, filled in zip(
            batch, result.faults(), published, result.filled, strict=True
        ):
            candle = ready.candle
            if fault is None:
                self.unsound.pop(candle.symbol, None)
            else:
                self.unsound[candle.symbol] = _FAULTS[fault]
            if filled == result.lookback:
                # The market may have ended: exchanges send nothing about one that they delist.
                withheld[ready.slot] = "untraded"
            elif candle.close_ms <= expired_ms:
                withheld[ready.slot] = "expired"
            elif fault is not None:
                withheld[ready.slot] = fault
            elif is_published:
                # A published forecast is never published again with other values.
                withheld[ready.slot] = "repeated"
        return withheld

    def _targets_ms(self, batch: Sequence[Ready]) -> list[int]:
        step_ms = self._market.timeframe.ms
        return [ready.candle.close_ms + step_ms for ready in batch]

    def _forecasts(self, result: InferenceResult, now_ms: int) -> ForecastBatch:
        candles = [ready.candle for ready in result.batch]
        skill_of = self._accuracy.skills.get
        skills = [skill_of(candle.symbol) for candle in candles]
        outlook = _shown(result.outlook)
        received_s = np.array([candle.received_s for candle in candles])
        ready_s = self._clock.monotonic() - received_s
        columns = Columns(
            last_close=result.last_close,
            predicted_close=result.price,
            predicted_normalized=result.raw,
            predicted_return=result.price / result.last_close - 1.0,
            lower=outlook.lower,
            upper=outlook.upper,
            threshold=outlook.threshold,
            short=outlook.short,
            neutral=outlook.neutral,
            long=outlook.long,
            out_of_range=result.out_of_range,
            mae_ratio=[0.0 if skill is None else skill.mae_ratio for skill in skills],
            stderr=[0.0 if skill is None else skill.stderr for skill in skills],
            ready_ms=np.round(1e3 * ready_s, 3),
            queue_ms=np.round(1e3 * (result.started_s - received_s), 3),
        )
        return ForecastBatch(
            market=self._market,
            common=Common(
                lookback=result.lookback,
                rules=outlook.rules,
                inference_ms=round(1e3 * result.inference_s, 3),
                published_ms=now_ms,
            ),
            candles=candles,
            numbers=columns.table(),
            known=outlook.known.tolist(),
            learnt=outlook.learnt.tolist(),
            models=result.models,
            filled=result.filled,
            repaired=result.repaired,
            skills=skills,
            late=(ready_s > self._budget_s).tolist(),
        )

    def _offer(
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


def _shown(outlook: Outlook) -> Outlook:
    """The outlook with 0 for the NaN of what is not known, which no message states."""
    known = outlook.known
    if known.all():
        return outlook
    return outlook._replace(
        lower=np.where(known, outlook.lower, 0.0),
        upper=np.where(known, outlook.upper, 0.0),
        threshold=np.where(known, outlook.threshold, 0.0),
        short=np.where(known, outlook.short, 0.0),
        neutral=np.where(known, outlook.neutral, 0.0),
        long=np.where(known, outlook.long, 0.0),
    )
