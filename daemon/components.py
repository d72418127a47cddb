"""Build the components of the daemon from its settings, and connect them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from config.settings import Settings
from daemon.candles.window import Window
from daemon.control.drift_monitor import DriftMonitor
from daemon.control.health import HealthMonitor, HealthSources
from daemon.control.hot_swap import ChampionSource, HotSwap
from daemon.control.model_loader import ModelLoader, make_first
from daemon.control.reload import Reloader
from daemon.control.shadow import Shadow, TrialSources
from daemon.control.symbol_changes import SymbolChanger
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.source import MarketSource
from daemon.factories import broker_of, gate_of, requirements_of
from daemon.feed.backfill import Backfill
from daemon.feed.feed import Feed
from daemon.forecast.accounting import Sinks
from daemon.forecast.batcher import MAX_BATCH, Batcher
from daemon.forecast.cache_warming import CacheWarmer
from daemon.forecast.forming import MIN_INTERVAL_S, Forming
from daemon.forecast.issuer import Issuer
from daemon.forecast.pipeline import Pipeline
from daemon.forecast.scheduler import InferenceScheduler
from daemon.forecast.symbol_table import SymbolTable
from daemon.metrics.metrics import Metrics
from daemon.mqtt.outbox import OUTBOX_SIZE, Outbox
from daemon.mqtt.publisher import Publisher
from daemon.persistence.learned_state import LearnedStateStore
from daemon.persistence.recorder import Recorder
from daemon.persistence.warm_start import resume
from daemon.runtime.clock import Clock
from daemon.runtime.sd_notify import Notifier
from daemon.scoring.accuracy import Accuracy
from daemon.web.status_page import PageSources, StatusPage
from model.core.candle import Timeframe
from model.core.market import MarketKey
from model.forecasts.forecast import Market, ModelInfo
from model.forecasts.volatility import WARMUP
from model.history.store import History
from model.registry.bundle import Bundle
from model.registry.registry import Registry
from model.shared_state.live_trial import FOLDER, TrialFiles


class Components:
    """Every component of one daemon, connected; nothing is opened or running yet.

    Read the constructor from top to bottom: each step uses what the steps before it built.

    Attributes:
        clock: the exchange's time.
        metrics: every series of this process.
        market: what is forecast.
        ready: set once every symbol's history has been requested and processed.
        recorder: writes the history.
        learned_state: saves and restores what the model has learned.
        accuracy: compares forecasts with the candles that came.
        publisher: sends messages to the broker.
        issuer: makes messages of inference results.
        table: windows and served model.
        scheduler: decides when inference runs.
        pipeline: from a closed candle to its forecast.
        forming: forecasts candles that have not closed.
        feed: candles from the exchange's stream.
        backfill: candles from the exchange's history.
        cache_warmer: dry runs before each close.
        health: status topic, metrics and memory.
        page: the status page.
        shadow: tries challengers on live candles.
        hot_swap: serves a new champion.
        reloader: applies a changed configuration.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        bundle: Bundle,
        history: History,
        clock: Clock,
        reread: Callable[[], Settings],
        notifier: Notifier,
    ) -> None:
        """Build everything.

        Args:
            settings: the checked configuration.
            bundle: the model to serve.
            history: the opened database.
            clock: the machine's.
            reread: reads the configuration again.
            notifier: the way to the service manager.
        """
        self._settings = settings
        self.clock = ExchangeClock(clock)
        self.metrics = Metrics(settings.metrics.max_symbols)
        self.market = Market(
            instance=settings.instance,
            exchange=settings.exchange.name,
            symbols=settings.trading.symbols,
            timeframe=Timeframe.parse(settings.trading.timeframe),
        )
        self.ready = asyncio.Event()
        manifest = bundle.manifest
        # Candles of a window: the features' warm-up and what the network is shown.
        self._capacity = max(manifest.indicators.warmup + manifest.lookback, WARMUP)
        self._build_persistence(history)
        self._build_path(bundle)
        self._build_feed()
        self._build_monitoring()
        self._build_control(reread, notifier)
        self._show_constants(bundle)

    def _build_persistence(self, history: History) -> None:
        """What survives a restart."""
        settings, market = self._settings, self.market
        self.recorder = Recorder(
            history, market.key, settings.history.keep_days, self.clock, self.metrics
        )
        self.learned_state = LearnedStateStore(self.recorder, market.key, self.clock)
        self.accuracy = Accuracy(settings.accuracy.window, settings.accuracy.min_n)

    def _build_path(self, bundle: Bundle) -> None:
        """What a closing candle passes, from its window to the broker."""
        settings, clock, market, metrics = self._settings, self.clock, self.market, self.metrics
        inference = settings.inference
        outbox = Outbox(OUTBOX_SIZE)
        self.publisher = Publisher(broker_of(settings), market.instance, outbox, clock, metrics)
        self.issuer = Issuer(
            market=market,
            publisher=self.publisher,
            accuracy=self.accuracy,
            clock=clock,
            budget_s=inference.latency_budget_ms / 1000,
        )
        self.table = SymbolTable(
            served=make_first(requirements_of(settings), bundle, clock.monotonic),
            symbols=market.symbols,
            timeframe=market.timeframe,
            capacity=self._capacity,
        )
        self.scheduler = InferenceScheduler(batcher=Batcher(MAX_BATCH), clock=clock)
        self.pipeline = Pipeline(
            table=self.table,
            scheduler=self.scheduler,
            issuer=self.issuer,
            sinks=Sinks(self.accuracy, self.recorder, metrics),
            clock=clock,
            request_repair=self._request_history,
        )
        self.forming = Forming(
            market=market,
            table=self.table,
            scheduler=self.scheduler,
            publisher=self.publisher,
            metrics=metrics,
            clock=clock,
            interval_s=MIN_INTERVAL_S,
        )

    def _build_feed(self) -> None:
        """Where candles come from."""
        settings, clock, market, metrics = self._settings, self.clock, self.market, self.metrics
        endpoint = settings.exchange.endpoint
        self.feed = Feed(
            MarketSource(
                name=market.exchange,
                endpoint_rest=endpoint.rest,
                endpoint_ws=endpoint.ws,
                symbols=market.symbols,
                timeframe=market.timeframe,
            ),
            clock=clock,
            metrics=metrics,
            on_closed=self.pipeline.on_candle_closed,
            on_resumed=self.pipeline.on_resumed,
            on_forming=self.forming.on_forming if settings.inference.forming else None,
            ask_history=self._request_history,
        )
        self.backfill = Backfill(
            self.feed,
            windows=self.table.windows,
            timeframe=market.timeframe,
            clock=clock,
            metrics=metrics,
            on_history=self.pipeline.on_history,
            capacity=self._capacity,
        )
        self.pipeline.unheard = self.feed.silent_symbols.symbols
        self.cache_warmer = CacheWarmer(
            table=self.table,
            scheduler=self.scheduler,
            issuer=self.issuer,
            clock=clock,
            timeframe=lambda: self.feed.grid.timeframe,
        )

    def _build_monitoring(self) -> None:
        """What watches over the daemon and shows it."""
        settings, metrics = self._settings, self.metrics
        sources = HealthSources(
            pipeline=self.pipeline,
            table=self.table,
            scheduler=self.scheduler,
            publisher=self.publisher,
            accuracy=self.accuracy,
            drift=DriftMonitor(
                metrics, settings.state_dir, request_retrains=settings.retrain.on_drift
            ),
            metrics=metrics,
            rest_only=lambda: self.feed.rest_only,
        )
        self.health = HealthMonitor(sources, self.ready, self.clock)
        view = PageSources(
            market=self.market,
            pipeline=self.pipeline,
            table=self.table,
            scheduler=self.scheduler,
            accounting=self.pipeline.accounting,
            state=self.health.state,
        )
        self.page = StatusPage(view, self.recorder, metrics, self.clock)

    def _build_control(self, reread: Callable[[], Settings], notifier: Notifier) -> None:
        """What changes while the daemon runs: champion, challenger, symbols."""
        settings, clock, metrics = self._settings, self.clock, self.metrics
        registry = Registry(settings.registry_dir)
        loader = ModelLoader(requirements_of(settings), clock.monotonic)
        self.shadow = Shadow(
            sources=TrialSources(
                registry=registry,
                load=loader.load_version,
                files=TrialFiles(settings.state_dir / FOLDER),
                rules=gate_of(settings),
            ),
            table=self.table,
            scheduler=self.scheduler,
            accuracy=self.accuracy,
            clock=clock,
            metrics=metrics,
        )
        self.hot_swap = HotSwap(
            champion=ChampionSource(
                version=registry.champion, check=loader.open_champion, load=loader.load_champion
            ),
            table=self.table,
            scheduler=self.scheduler,
            pipeline=self.pipeline,
            learned_state=self.learned_state,
            clock=clock,
            metrics=metrics,
        )
        symbol_changer = SymbolChanger(
            table=self.table,
            scheduler=self.scheduler,
            feed=self.feed,
            backfill=self.backfill,
            hot_swap=self.hot_swap,
            resume=self.resume,
            clock=clock,
            metrics=metrics,
        )

        def read() -> dict[str, Any]:
            """Read the configuration as it is now; in a thread."""
            now = reread()
            loader.allow_unknown(requirements_of(now).fit_unknown)
            return now.model_dump()

        self.reloader = Reloader(
            settings.model_dump(),
            read,
            self.hot_swap,
            symbol_changer,
            partial(notifier.reloading, clock),
        )

    def _show_constants(self, bundle: Bundle) -> None:
        """Set the metrics that never change, and the model's."""
        settings, metrics = self._settings, self.metrics
        metrics.forecasts.latency_budget.set(settings.inference.latency_budget_ms / 1000)
        metrics.forecasts.timeframe.set(self.market.timeframe.ms / 1000)
        metrics.accuracy.interval_level.set(settings.calibration.level)
        metrics.model.set_served(ModelInfo(bundle.version, bundle.sha256, bundle.manifest.target))

    def _request_history(self, symbol: str) -> None:
        self.backfill.request(symbol)

    async def resume(self, windows: Sequence[Window]) -> None:
        """Fill windows from the history."""
        market = MarketKey(self.market.exchange, self.feed.grid.timeframe)
        await resume(windows, self.recorder, market, self._capacity, self.clock)
