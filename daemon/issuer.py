"""The last step of the path: a number becomes a forecast, a message and an entry in the books."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from daemon.marks import Marks
from daemon.outbox import Outgoing
from daemon.topics import batch_topic, prediction_topic
from model.forecast import (
    Forecast,
    Interval,
    Latency,
    ModelInfo,
    Probabilities,
    WindowInfo,
    batch_payload,
    payload,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.accuracy import Accuracy
    from daemon.batcher import Ready
    from daemon.clock import Clock
    from daemon.metrics import Metrics
    from daemon.publisher import Publisher
    from daemon.recorder import Recorder
    from model.candle import Candle, Timeframe

_BATCH_PART = 100


class Market(NamedTuple):
    """What this daemon forecasts, and under which name.

    Attributes:
        instance: this daemon's name.
        exchange: ccxt exchange id.
        symbols: ccxt symbols at the start; their order is the slot of every per-symbol array.
        timeframe: the grid.
    """

    instance: str
    exchange: str
    symbols: tuple[str, ...]
    timeframe: Timeframe


class Books(NamedTuple):
    """Where the accounts are kept."""

    accuracy: Accuracy
    recorder: Recorder
    metrics: Metrics


class Result(NamedTuple):
    """What the network made of one candle.

    Attributes:
        raw: the network's output.
        price: the next close that it means.
        window: what it was made from.
        model: which model spoke.
        queue_s: from the candle's arrival to the beginning of its flush.
        inference_s: of the batch it was in.
        interval: None until there is enough evidence.
        probabilities: None until there is enough evidence.
    """

    raw: float
    price: float
    window: WindowInfo
    model: ModelInfo
    queue_s: float
    inference_s: float
    interval: Interval | None = None
    probabilities: Probabilities | None = None


class Issuer:
    """Publishes each forecast once, and writes down that it did.

    Attributes:
        marks: the newest forecast of each symbol, as it is remembered over a restart.
        newest: the last forecast of each symbol that this process made.
    """

    def __init__(
        self, market: Market, publisher: Publisher, books: Books, clock: Clock, budget_s: float
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
        self._flushes = 0
        self._unaccounted: list[Forecast] = []
        self._batch_topic = batch_topic(market.exchange, market.timeframe.text)
        self._topics: list[str] = []
        self.newest: dict[str, Forecast] = {}
        self.marks = Marks(())
        self.address(market.symbols)

    def address(self, symbols: Sequence[str]) -> None:
        """Prepare the topics of symbols, in the order of their slots."""
        market, frame = self._market, self._market.timeframe.text
        self._topics = [prediction_topic(market.exchange, s, frame) for s in symbols]
        self.marks.rename(self._topics)
        self.newest = {s: f for s, f in self.newest.items() if s in symbols}

    def issue(self, ready: Ready, result: Result) -> bytes | None:
        """Publish one forecast; None when it is of no use: too old, not a price, or a repetition.

        It is entered in the books by the next `account`, which must come before the next flush.

        Returns:
            The message as it was published.
        """
        forecast = self._forecast(ready.candle, result)
        reason = self._unfit(ready.slot, forecast)
        if reason is not None:
            self._books.metrics.count_skipped(reason, 1)
            return None
        encoded = payload(forecast, self._market.instance)
        topic = self._topics[ready.slot]
        self.marks.note(ready.slot, forecast.target_close_ms)
        self._publisher.offer(
            Outgoing(
                topic,
                topic,
                encoded,
                qos=1,
                retain=self._publisher.retains,
                valid_until_ms=forecast.valid_until_ms,
                received_s=ready.candle.received_s,
                late=forecast.late,
                is_forecast=True,
            )
        )
        self._unaccounted.append(forecast)
        return encoded

    def account(self) -> None:
        """Enter what was issued since the last call in the books."""
        accuracy, recorder, metrics = self._books
        for forecast in self._unaccounted:
            accuracy.add(forecast)
            recorder.forecast(forecast)
            metrics.ready(forecast)
            self.newest[forecast.symbol] = forecast
        self._unaccounted.clear()

    def issue_batch(self, messages: Sequence[bytes]) -> None:
        """Publish the forecasts of a flush once more, together, for whoever wants them all."""
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
                    valid_until_ms=now_ms + self._market.timeframe.ms,
                )
            )

    def score(self, candle: Candle) -> None:
        """Hold the forecast that was made of this candle against it."""
        realised = self._books.accuracy.on_candle(candle)
        if realised is not None:
            self._books.metrics.realised(realised)

    def _unfit(self, slot: int, forecast: Forecast) -> str | None:
        if forecast.published_ms >= forecast.valid_until_ms:
            return "expired"
        if not (math.isfinite(forecast.predicted_close) and forecast.predicted_close > 0.0):
            return "not_a_price"
        # What was published before a restart is never published in other words.
        known = self._books.accuracy.knows(forecast.symbol, forecast.candle_close_ms)
        return "repeated" if known or self.marks.left(slot, forecast.target_close_ms) else None

    def _forecast(self, candle: Candle, result: Result) -> Forecast:
        market = self._market
        ready_s = self._clock.monotonic() - candle.received_s
        target_close_ms = candle.close_ms + market.timeframe.ms
        last = candle.ohlcv.close
        return Forecast(
            exchange=market.exchange,
            symbol=candle.symbol,
            timeframe=market.timeframe.text,
            seq=candle.close_ms // market.timeframe.ms,
            candle_open_ms=candle.open_ms,
            candle_close_ms=candle.close_ms,
            target_close_ms=target_close_ms,
            valid_until_ms=target_close_ms,
            published_ms=self._clock.wall_ms(),
            last_close=last,
            predicted_close=result.price,
            predicted_normalized=result.raw,
            predicted_return=result.price / last - 1.0,
            interval=result.interval,
            probabilities=result.probabilities,
            window=result.window,
            skill=self._books.accuracy.skill(candle.symbol),
            model=result.model,
            latency=Latency(ready_s * 1e3, result.queue_s * 1e3, result.inference_s * 1e3),
            late=ready_s > self._budget_s,
        )
