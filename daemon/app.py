"""The daemon, wired: what is opened in which order, what runs beside what, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from config.settings import Settings
from daemon.candles.window import Window
from daemon.control.drift_monitor import DriftMonitor
from daemon.control.health import HealthMonitor, HealthSources
from daemon.control.hot_swap import HotSwap
from daemon.control.model_loader import ModelLoader, make_first, make_unservable, open_first
from daemon.control.reload import Reloader
from daemon.control.retrain_watch import watch_retrain_status
from daemon.control.shadow import Shadow
from daemon.control.symbol_changes import SymbolChanger
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.source import MarketSource
from daemon.factories import broker_of, gate_of, guard_of, recipe_of
from daemon.feed.backfill import Backfill
from daemon.feed.feed import Feed
from daemon.forecast.accounting import Sinks
from daemon.forecast.batcher import MAX_BATCH, Batcher
from daemon.forecast.cache_warming import CacheWarmer
from daemon.forecast.forming import MIN_INTERVAL_S, Forming
from daemon.forecast.issuer import Issuer
from daemon.forecast.pipeline import Pipeline
from daemon.metrics.metrics import Metrics
from daemon.mqtt.outbox import OUTBOX_SIZE, Outbox
from daemon.mqtt.publisher import Publisher
from daemon.persistence.learned_state import LearnedStateStore
from daemon.persistence.recorder import Recorder
from daemon.persistence.warm_start import resume
from daemon.runtime.clock import Clock, SystemClock
from daemon.runtime.sd_notify import Notifier, tell_progress
from daemon.runtime.tasks import unwrap_expected
from daemon.scoring.accuracy import Accuracy
from daemon.web.server import serve_http
from daemon.web.status_page import PageSources, StatusPage
from model.core.candle import Timeframe
from model.core.errors import CandlecastError
from model.core.market import MarketKey
from model.forecasts.forecast import Market, ModelInfo
from model.forecasts.volatility import WARMUP
from model.history.store import History
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from model.serving_check import summary
from model.shared_state.live_trial import FOLDER, TrialFiles

log = logging.getLogger("candlecast.app")

_FAREWELL_S = 2.0
_SETTLE_S = 30.0
"""In a market in which something closes all the time not all states are ever prepared."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Bundle, History]]:
    """The champion and the history of a configuration, closed again at the end.

    Raises:
        BundleError: no champion, or one that does not fit.
        HistoryError: the database is corrupt or foreign.
    """
    bundle = await asyncio.to_thread(open_first, recipe_of(settings))
    history = await asyncio.to_thread(History, settings.state_dir / "history.sqlite")
    try:
        yield bundle, history
    finally:
        await asyncio.to_thread(history.close)


async def serve(settings: Settings, stop: asyncio.Event, reread: Callable[[], Settings]) -> None:
    """`candlecast run`: forecast until ``stop`` is set.

    Args:
        settings: the checked configuration.
        stop: ends it.
        reread: reads the configuration once more, for a SIGHUP.

    Raises:
        CandlecastError: one clear line.
    """
    notifier, loop, early = Notifier(os.environ), asyncio.get_running_loop(), asyncio.Event()
    # Unhandled, it would end a daemon that is still opening its files.
    loop.add_signal_handler(signal.SIGHUP, early.set)
    async with opened(settings) as (bundle, history):
        app = App(settings, bundle, history, SystemClock(), reread, notifier=notifier)
        loop.add_signal_handler(signal.SIGHUP, app.hangup.set)
        if early.is_set():
            app.hangup.set()
        await app.run(stop)


class App:
    """One daemon: built, run until told to stop, taken down in order.

    Attributes:
        hangup: set it to have configuration and champion looked at again, as a SIGHUP does.
        ready: set once every symbol's history has been asked for and worked up.
        metrics: every series of this process.
    """

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        history: History,
        clock: Clock,
        reread: Callable[[], Settings] | None = None,
        on_listening: Callable[[str], None] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        """Wire everything; nothing is opened yet.

        Args:
            settings: the checked configuration.
            bundle: the model to serve.
            history: the opened database.
            clock: the machine's; all that runs here goes by the exchange's time.
            reread: reads the configuration once more; None: it never changes.
            on_listening: told the status page's address once it answers.
            notifier: the way to the service manager, if there is one.
        """
        clock = ExchangeClock(clock)
        self.ready = asyncio.Event()
        self.metrics = Metrics(settings.metrics.max_symbols)
        self._settings = settings
        self._clock = clock
        self._on_listening = on_listening
        self._notifier = notifier or Notifier({})
        self._guard = guard_of(settings)
        self._timeframe = Timeframe.parse(settings.trading.timeframe)
        manifest = bundle.manifest
        self._capacity = max(manifest.indicators.warmup + manifest.lookback, WARMUP)
        self.metrics.forecasts.latency_budget.set(settings.inference.latency_budget_ms / 1000)
        self.metrics.forecasts.timeframe.set(self._timeframe.ms / 1000)
        self.metrics.accuracy.interval_level.set(settings.calibration.level)
        self.metrics.model.set_served(ModelInfo(bundle.version, bundle.sha256, manifest.target))
        self._lay_path(bundle, history)
        self._open_sources()
        self._follow_models(reread or (lambda: settings))

    def _lay_path(self, bundle: Bundle, history: History) -> None:
        """What a closing candle passes through, and who looks over it."""
        settings, clock, metrics = self._settings, self._clock, self.metrics
        symbols, timeframe = settings.trading.symbols, self._timeframe
        market = Market(settings.instance, settings.exchange.name, symbols, timeframe)
        self._recorder = Recorder(history, market.key, settings.history.keep_days, clock, metrics)
        self._keeper = LearnedStateStore(self._recorder, market.key, clock)
        self._accuracy = Accuracy(settings.accuracy.window, settings.accuracy.min_n)
        books = Sinks(self._accuracy, self._recorder, metrics)
        outbox = Outbox(OUTBOX_SIZE)
        self._publisher = Publisher(broker_of(settings), market.instance, outbox, clock, metrics)
        inference = settings.inference
        issuer = Issuer(market, self._publisher, books, clock, inference.latency_budget_ms / 1000)
        self._marks = issuer.marks
        self._pipeline = Pipeline(
            market,
            make_first(recipe_of(settings), bundle, clock.monotonic),
            Batcher(MAX_BATCH),
            issuer,
            books,
            clock,
            self._request,
            self._capacity,
        )
        self._rehearsal = CacheWarmer(
            self._pipeline, issuer, clock, lambda: self._feed.grid.timeframe
        )
        self._forming = Forming(
            market, self._pipeline, self._publisher, metrics, clock, MIN_INTERVAL_S
        )
        drift = DriftMonitor(
            metrics, settings.state_dir, request_retrains=settings.retrain.on_drift
        )
        overseen = HealthSources(
            self._pipeline, self._publisher, self._accuracy, drift, metrics, self._rest_only
        )
        self._overseer = HealthMonitor(overseen, self.ready, clock)
        view = PageSources(market, self._pipeline, issuer, self._overseer.state)
        self._page = StatusPage(view, self._recorder, metrics, clock)

    def _open_sources(self) -> None:
        """Where candles come from."""
        settings, clock, metrics, pipeline = (
            self._settings, self._clock, self.metrics, self._pipeline
        )  # fmt: skip
        exchange, endpoint = settings.exchange.name, settings.exchange.endpoint
        symbols, timeframe = settings.trading.symbols, self._timeframe
        self._feed = Feed(
            MarketSource(exchange, endpoint.rest, endpoint.ws, symbols, timeframe),
            clock,
            metrics,
            pipeline.on_closed,
            pipeline.on_resumed,
            self._forming.on_forming if settings.inference.forming else None,
            self._request,
        )
        pipeline.unheard = self._feed.silent_symbols.symbols
        self._backfill = Backfill(
            self._feed,
            pipeline.windows,
            timeframe,
            clock,
            metrics,
            pipeline.on_history,
            self._capacity,
        )

    def _follow_models(self, reread: Callable[[], Settings]) -> None:
        """What changes while the daemon runs: champion, challenger, symbols."""
        settings, clock, metrics, pipeline = (
            self._settings, self._clock, self.metrics, self._pipeline
        )  # fmt: skip
        registry = Registry(settings.registry_dir)
        loader = ModelLoader(recipe_of(settings), clock.monotonic)
        trial = TrialFiles(settings.state_dir / FOLDER)
        self._shadow = Shadow(
            registry, loader.load_version, trial, gate_of(settings),
            pipeline, self._accuracy, clock, metrics,
        )  # fmt: skip
        self._swapper = HotSwap(
            registry.champion, loader.open_champion, loader.load_champion,
            pipeline, self._keeper, clock, metrics,
        )  # fmt: skip
        roster = SymbolChanger(
            pipeline, self._feed, self._backfill, self._swapper, self._resume, clock, metrics
        )

        def read() -> dict[str, Any]:
            """The configuration as it is now; in a thread."""
            now = reread()
            loader.allow_unknown(recipe_of(now).fit_unknown)
            return now.model_dump()

        self._reloader = Reloader(
            settings.model_dump(),
            read,
            self._swapper,
            roster,
            lambda: self._notifier.reloading(self._clock),
        )
        self.hangup = self._reloader.hangup

    async def _resume(self, windows: Sequence[Window]) -> None:
        """Prime windows from the history."""
        market = MarketKey(self._settings.exchange.name, self._feed.grid.timeframe)
        await resume(windows, self._recorder, market, self._capacity, self._clock)

    def _request(self, symbol: str) -> None:
        self._backfill.request(symbol)

    def _rest_only(self) -> Sequence[str]:
        return self._feed.rest_only

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or something happens that cannot be cured.

        Raises:
            CandlecastError: one clear line.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._recorder.run(), name="recorder"),
                    group.create_task(self._publisher.run(), name="publisher"),
                    group.create_task(self._serve_pages(), name="pages"),
                    group.create_task(self._show_nightly(), name="nightly"),
                    group.create_task(self._serve_forecasts(), name="forecasts"),
                ]
                await stop.wait()
                await self._farewell(tasks)
                await asyncio.wait(tasks)
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, CandlecastError) from None
        finally:
            await self._feed.close()

    async def _serve_forecasts(self) -> None:
        """Connect to the exchange, warm up, and stay."""
        await self._restore()
        await self._feed.open()
        await self._resume(self._pipeline.windows)
        await asyncio.to_thread(self._pipeline.served.warm)
        await self._try_out()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipeline.run(), name="pipeline")
            group.create_task(self._feed.run(), name="feed")
            for symbol in self._settings.trading.symbols:
                self._backfill.request(symbol)
            await self._backfill.fetch_requested()
            await self._pipeline.settled(_SETTLE_S)
            await self._try_out()
            self.ready.set()
            self._notifier.ready()
            log.info("ready: %d symbols", len(self._settings.trading.symbols))
            group.create_task(self._backfill.run(), name="backfill")
            group.create_task(self._backfill.request_overdue(), name="overdue")
            group.create_task(self._overseer.run(), name="watch")
            group.create_task(self._forming.run(), name="forming")
            group.create_task(self._rehearsal.run(), name="rehearsal")
            group.create_task(self._keeper.run(lambda: self._pipeline.served), name="keeper")
            group.create_task(self._swapper.run(), name="swapper")
            group.create_task(self._reloader.run(), name="reload")
            if self._settings.registry.shadow:
                group.create_task(self._shadow.run(), name="shadow")
            if self._notifier.is_heard:
                group.create_task(self._tell_progress(), name="notify")

    async def _try_out(self) -> None:
        """Hold the model against the last value on what there is of recent history.

        Raises:
            Unservable: forecasts of some symbol must not be published.
        """
        found = await self._pipeline.try_out()
        if found:
            served = self._pipeline.served
            why = summary(served.symbols, found, len(served.symbols))
            raise await asyncio.to_thread(make_unservable, self._settings.registry_dir, why)

    async def _restore(self) -> None:
        """Take up the account where the last process left it."""
        settings = self._settings
        market = MarketKey(settings.exchange.name, self._timeframe)
        # One more than the window: the newest forecast still waits for its candle.
        limit = settings.accuracy.window + 1
        await self._recorder.read(
            lambda history: self._accuracy.restore(history.outcomes(market, limit))
        )
        await self._keeper.restore(self._pipeline.served)
        await asyncio.to_thread(self._marks.open, settings.state_dir / "last-published")
        # The first candle may take an hour to close: until then nobody is to be alarmed.
        now_ms = self._clock.wall_ms()
        self.metrics.forecasts.set_last_prediction(
            self._marks.newest_ms(self._timeframe.ms, now_ms)
        )

    async def _tell_progress(self) -> None:
        pipeline = self._pipeline
        await tell_progress(
            self._notifier, self._clock, pipeline.ping, pipeline.stuck_s, self._overseer.summary
        )

    async def _farewell(self, tasks: list[asyncio.Task[None]]) -> None:
        """Stop taking in candles, hand out what is ready, say goodbye."""
        self._notifier.stopping()
        *edges, forecasts = tasks
        forecasts.cancel()
        await self._publisher.shutdown(_FAREWELL_S)
        await self._keeper.save(self._pipeline.served)
        for task in edges:
            task.cancel()

    async def _show_nightly(self) -> None:
        await watch_retrain_status(self._settings.state_dir, self.metrics, self._clock)

    async def _serve_pages(self) -> None:
        http = self._settings.http
        await serve_http(
            http.host,
            http.port,
            self.metrics,
            self._overseer.health,
            self._clock,
            self._on_listening,
            self._page.add_to,
            self._guard,
        )
