"""Build the daemon from its parts, run them together and stop them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from config.settings import Settings
from daemon.candles.window import Window
from daemon.control.drift_monitor import DriftWatch
from daemon.control.health import HealthMonitor, HealthSources
from daemon.control.hot_swap import ChampionSource, HotSwap
from daemon.control.model_loader import Loader, make_first, open_first, unservable
from daemon.control.reload import Reloader
from daemon.control.retrain_watch import show_nightly
from daemon.control.shadow import Shadow, TrialSources
from daemon.control.symbol_changes import SymbolChanger
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.source import MarketSource
from daemon.factories import broker_of, gate_of, guard_of, recipe_of
from daemon.feed.backfill import Backfill
from daemon.feed.feed import Feed
from daemon.forecast.accounting import Sinks
from daemon.forecast.batcher import Batcher
from daemon.forecast.cache_warming import CacheWarmer
from daemon.forecast.forming import Forming
from daemon.forecast.issuer import Issuer
from daemon.forecast.pipeline import Pipeline
from daemon.forecast.restore import restore_published
from daemon.forecast.scheduler import InferenceScheduler
from daemon.forecast.symbol_table import SymbolTable
from daemon.metrics.metrics import Metrics
from daemon.mqtt.outbox import Outbox
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
from model.forecasts.forecast import Market, ModelInfo
from model.forecasts.volatility import WARMUP
from model.history.store import History
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from model.serving_check import summary
from model.shared_state.live_trial import FOLDER, TrialFiles

log = logging.getLogger("candlecast.app")

_SHUTDOWN_TIMEOUT_S = 2.0
"""How long the broker may take to accept the last messages."""

_MAX_WARM_UP_S = 30.0
"""Where candles close all the time, not all states are ever prepared."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Bundle, History]]:
    """Open the champion and the history of a configuration; close them at the end.

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
        reread: reads the configuration again, for a SIGHUP.

    Raises:
        CandlecastError: one clear line.
    """
    notifier, loop, early = Notifier(os.environ), asyncio.get_running_loop(), asyncio.Event()
    # Unhandled, a SIGHUP would end a daemon that is still opening its files.
    loop.add_signal_handler(signal.SIGHUP, early.set)
    async with opened(settings) as (bundle, history):
        app = App(settings, bundle, history, SystemClock(), reread, notifier=notifier)
        loop.add_signal_handler(signal.SIGHUP, app.hangup.set)
        if early.is_set():
            app.hangup.set()
        await app.run(stop)


class App:
    """One daemon: built by the constructor, run until told to stop, taken down in order.

    Attributes:
        hangup: set it to reread configuration and champion, as a SIGHUP does.
        ready: set once every symbol's history has been requested and processed.
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
        """Build everything; nothing is opened yet.

        Args:
            settings: the checked configuration.
            bundle: the model to serve.
            history: the opened database.
            clock: the machine's; everything here uses the exchange's time, carried on by it.
            reread: reads the configuration again; None: it never changes.
            on_listening: called with the status page's address once it answers.
            notifier: the way to the service manager, if there is one.
        """
        self._settings = settings
        self._clock = ExchangeClock(clock)
        self._on_listening = on_listening
        self._notifier = notifier or Notifier({})
        self._page_access = guard_of(settings)
        self.ready = asyncio.Event()
        self.metrics = Metrics(settings.metrics.max_symbols)
        self._market = Market(
            instance=settings.instance,
            exchange=settings.exchange.name,
            symbols=settings.trading.symbols,
            timeframe=Timeframe.parse(settings.trading.timeframe),
        )
        manifest = bundle.manifest
        # Candles of a window: the features' warm-up and what the network is shown.
        self._capacity = max(manifest.indicators.warmup + manifest.lookback, WARMUP)
        self._build_persistence(history)
        self._build_path(bundle)
        self._build_feed()
        self._build_monitoring()
        self._build_control(reread or (lambda: settings))
        self._show_constants(bundle)

    def _build_persistence(self, history: History) -> None:
        """What survives a restart."""
        settings, market = self._settings, self._market
        place = market.exchange, market.timeframe.text
        self._recorder = Recorder(
            history, place, settings.history.keep_days, self._clock, self.metrics
        )
        self._learned_state = LearnedStateStore(self._recorder, place, self._clock)
        self._accuracy = Accuracy(settings.accuracy.window, settings.accuracy.min_n)

    def _build_path(self, bundle: Bundle) -> None:
        """What a closing candle passes, from its window to the broker."""
        settings, clock, market, metrics = self._settings, self._clock, self._market, self.metrics
        inference = settings.inference
        outbox = Outbox(settings.mqtt.outbox_size)
        self._publisher = Publisher(broker_of(settings), market.instance, outbox, clock, metrics)
        self._issuer = Issuer(
            market=market,
            publisher=self._publisher,
            accuracy=self._accuracy,
            clock=clock,
            budget_s=inference.latency_budget_ms / 1000,
        )
        self._table = SymbolTable(
            served=make_first(recipe_of(settings), bundle, clock.monotonic),
            symbols=market.symbols,
            timeframe=market.timeframe,
            capacity=self._capacity,
        )
        self._scheduler = InferenceScheduler(batcher=Batcher(inference.max_batch), clock=clock)
        self._pipeline = Pipeline(
            table=self._table,
            scheduler=self._scheduler,
            issuer=self._issuer,
            sinks=Sinks(self._accuracy, self._recorder, metrics),
            clock=clock,
            request_repair=self._request_history,
        )
        self._forming = Forming(
            market=market,
            table=self._table,
            scheduler=self._scheduler,
            publisher=self._publisher,
            metrics=metrics,
            clock=clock,
            interval_s=inference.forming_interval_ms / 1000,
        )

    def _build_feed(self) -> None:
        """Where candles come from."""
        settings, clock, market, metrics = self._settings, self._clock, self._market, self.metrics
        endpoint = settings.exchange.endpoint
        self._feed = Feed(
            MarketSource(
                name=market.exchange,
                endpoint_rest=endpoint.rest,
                endpoint_ws=endpoint.ws,
                symbols=market.symbols,
                timeframe=market.timeframe,
            ),
            clock=clock,
            metrics=metrics,
            on_closed=self._pipeline.on_candle_closed,
            on_resumed=self._pipeline.on_resumed,
            on_forming=self._forming.on_forming if settings.inference.forming else None,
            ask_history=self._request_history,
        )
        self._backfill = Backfill(
            self._feed,
            windows=self._table.windows,
            timeframe=market.timeframe,
            clock=clock,
            metrics=metrics,
            on_history=self._pipeline.on_history,
            capacity=self._capacity,
        )
        self._pipeline.unheard = self._feed.hearing.unheard
        self._cache_warmer = CacheWarmer(
            table=self._table,
            scheduler=self._scheduler,
            issuer=self._issuer,
            clock=clock,
            timeframe=lambda: self._feed.grid.timeframe,
        )

    def _build_monitoring(self) -> None:
        """What watches over the daemon and shows it."""
        settings, metrics = self._settings, self.metrics
        sources = HealthSources(
            pipeline=self._pipeline,
            table=self._table,
            scheduler=self._scheduler,
            publisher=self._publisher,
            accuracy=self._accuracy,
            drift=DriftWatch(metrics, settings.state_dir, ask=settings.retrain.on_drift),
            metrics=metrics,
            rest_only=lambda: self._feed.rest_only,
        )
        self._health = HealthMonitor(sources, self.ready, self._clock)
        view = PageSources(
            market=self._market,
            pipeline=self._pipeline,
            table=self._table,
            scheduler=self._scheduler,
            accounting=self._pipeline.accounting,
            state=self._health.state,
        )
        self._page = StatusPage(view, self._recorder, metrics, self._clock)

    def _build_control(self, reread: Callable[[], Settings]) -> None:
        """What changes while the daemon runs: champion, challenger, symbols."""
        settings, clock, metrics = self._settings, self._clock, self.metrics
        registry = Registry(settings.registry_dir)
        loader = Loader(recipe_of(settings), clock.monotonic)
        self._shadow = Shadow(
            sources=TrialSources(
                registry=registry,
                load=loader.version,
                files=TrialFiles(settings.state_dir / FOLDER),
                rules=gate_of(settings),
            ),
            table=self._table,
            scheduler=self._scheduler,
            accuracy=self._accuracy,
            clock=clock,
            metrics=metrics,
        )
        self._hot_swap = HotSwap(
            champion=ChampionSource(
                version=registry.champion, examine=loader.examine, load=loader.champion
            ),
            table=self._table,
            scheduler=self._scheduler,
            pipeline=self._pipeline,
            keeper=self._learned_state,
            clock=clock,
            metrics=metrics,
        )
        symbol_changer = SymbolChanger(
            table=self._table,
            scheduler=self._scheduler,
            feed=self._feed,
            backfill=self._backfill,
            swapper=self._hot_swap,
            resume=self._resume,
            clock=clock,
            metrics=metrics,
        )

        def read() -> dict[str, Any]:
            """Read the configuration as it is now; in a thread."""
            now = reread()
            loader.allow_unknown(recipe_of(now).fit_unknown)
            return now.model_dump()

        self._reloader = Reloader(
            settings.model_dump(),
            read,
            self._hot_swap,
            symbol_changer,
            partial(self._notifier.reloading, clock),
        )
        self.hangup = self._reloader.hangup

    def _show_constants(self, bundle: Bundle) -> None:
        """Set the metrics that never change, and the model's."""
        settings, metrics = self._settings, self.metrics
        metrics.latency_budget.set(settings.inference.latency_budget_ms / 1000)
        metrics.timeframe.set(self._market.timeframe.ms / 1000)
        metrics.accuracy.interval_level.set(settings.calibration.level)
        metrics.model.show(ModelInfo(bundle.version, bundle.sha256, bundle.manifest.target))

    def _request_history(self, symbol: str) -> None:
        self._backfill.request(symbol)

    async def _resume(self, windows: Sequence[Window]) -> None:
        """Fill windows from the history."""
        market = self._market.exchange, self._feed.grid.timeframe
        await resume(windows, self._recorder, market, self._capacity, self._clock)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or something fails that retrying cannot cure.

        Raises:
            CandlecastError: one clear line.
        """
        settings = self._settings
        pages = serve_http(
            settings.http.host,
            settings.http.port,
            self.metrics,
            self._health.health,
            self._clock,
            self._on_listening,
            self._page.add_to,
            self._page_access,
        )
        nightly = show_nightly(settings.state_dir, self.metrics, self._clock)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._recorder.run(), name="recorder"),
                    group.create_task(self._publisher.run(), name="publisher"),
                    group.create_task(pages, name="pages"),
                    group.create_task(nightly, name="nightly"),
                    group.create_task(self._serve_forecasts(), name="forecasts"),
                ]
                await stop.wait()
                await self._shut_down(tasks)
                await asyncio.wait(tasks)
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, CandlecastError) from None
        finally:
            await self._feed.close()

    async def _serve_forecasts(self) -> None:
        """Restore, connect to the exchange, warm up, and forecast until cancelled."""
        settings = self._settings
        await self._restore()
        await self._feed.open()
        await self._resume(self._table.windows)
        await asyncio.to_thread(self._table.served.warm)
        await self._require_sound_model()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipeline.run(), name="pipeline")
            group.create_task(self._feed.run(), name="feed")
            for symbol in self._market.symbols:
                self._backfill.request(symbol)
            await self._backfill.fetch_requested()
            await self._scheduler.wait_idle(_MAX_WARM_UP_S)
            await self._require_sound_model()
            self.ready.set()
            self._notifier.ready()
            log.info("ready: %d symbols", len(self._market.symbols))
            group.create_task(self._backfill.run(), name="backfill")
            group.create_task(self._backfill.ask_for_overdue(), name="overdue")
            group.create_task(self._health.run(), name="health")
            group.create_task(self._forming.run(), name="forming")
            group.create_task(self._cache_warmer.run(), name="cache-warmer")
            group.create_task(
                self._learned_state.run(lambda: self._table.served), name="learned-state"
            )
            group.create_task(self._hot_swap.run(), name="hot-swap")
            group.create_task(self._reloader.run(), name="reload")
            if settings.registry.shadow:
                group.create_task(self._shadow.run(), name="shadow")
            if self._notifier.is_heard:
                scheduler, summary = self._scheduler, self._health.summary
                progress = tell_progress(
                    self._notifier, self._clock, scheduler.ping, scheduler.stuck_s, summary
                )
                group.create_task(progress, name="notify")

    async def _restore(self) -> None:
        """Restore what the last process published and what its model had learned."""
        await restore_published(
            recorder=self._recorder,
            market=self._market,
            accuracy=self._accuracy,
            issuer=self._issuer,
            path=self._settings.state_dir / "last-published",
            window=self._settings.accuracy.window,
        )
        await self._learned_state.restore(self._table.served)
        # The first candle may take an hour to close: until then the metric must raise no alarm.
        now_ms = self._clock.wall_ms()
        step_ms = self._market.timeframe.ms
        self.metrics.made_ready(self._issuer.last_published.newest_ms(step_ms, now_ms))

    async def _require_sound_model(self) -> None:
        """Compare the model's forecasts from recent history with the last value.

        Raises:
            Unservable: forecasts of some symbol must not be published.
        """
        found = await self._pipeline.check_model()
        if found:
            served = self._table.served
            why = summary(served.symbols, found, len(served.symbols))
            raise await asyncio.to_thread(unservable, self._settings.registry_dir, why)

    async def _shut_down(self, tasks: list[asyncio.Task[None]]) -> None:
        """Stop taking in candles, send what is ready, announce the end, save what was learned."""
        self._notifier.stopping()
        *edges, forecasts = tasks
        forecasts.cancel()
        await self._publisher.shutdown(_SHUTDOWN_TIMEOUT_S)
        await self._learned_state.save(self._table.served)
        for task in edges:
            task.cancel()
