"""Run the daemon: open its components in order, run them together, stop them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from config.settings import Settings
from daemon.components import Components
from daemon.control.model_loader import make_unservable, open_first
from daemon.control.retrain_watch import watch_retrain_status
from daemon.factories import page_access_of, requirements_of
from daemon.forecast.restore import restore_published
from daemon.runtime.clock import Clock, SystemClock
from daemon.runtime.sd_notify import Notifier, report_progress
from daemon.runtime.tasks import unwrap_expected
from daemon.web.server import serve_http
from model.core.errors import CandlecastError
from model.history.store import History
from model.registry.bundle import Bundle
from model.serving_check import summary

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
    bundle = await asyncio.to_thread(open_first, requirements_of(settings))
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
    """One daemon: run until told to stop, taken down in order.

    Attributes:
        parts: its components.
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
        self._on_listening = on_listening
        self._notifier = notifier or Notifier({})
        self._page_access = page_access_of(settings)
        self.parts = Components(
            settings=settings,
            bundle=bundle,
            history=history,
            clock=clock,
            reread=reread or (lambda: settings),
            notifier=self._notifier,
        )
        self.metrics = self.parts.metrics
        self.hangup = self.parts.reloader.hangup
        self.ready = self.parts.ready

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or something fails that retrying cannot cure.

        Raises:
            CandlecastError: one clear line.
        """
        settings, parts = self._settings, self.parts
        pages = serve_http(
            settings.http.host,
            settings.http.port,
            parts.metrics,
            parts.health.health,
            parts.clock,
            self._on_listening,
            parts.page.add_to,
            self._page_access,
        )
        nightly = watch_retrain_status(settings.state_dir, parts.metrics, parts.clock)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(parts.recorder.run(), name="recorder"),
                    group.create_task(parts.publisher.run(), name="publisher"),
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
            await parts.feed.close()

    async def _serve_forecasts(self) -> None:
        """Restore, connect to the exchange, warm up, and forecast until cancelled."""
        settings, parts = self._settings, self.parts
        await self._restore()
        await parts.feed.open()
        await parts.resume(parts.table.windows)
        await asyncio.to_thread(parts.table.served.warm)
        await self._require_sound_model()
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.pipeline.run(), name="pipeline")
            group.create_task(parts.feed.run(), name="feed")
            for symbol in parts.market.symbols:
                parts.backfill.request(symbol)
            await parts.backfill.fetch_requested()
            await parts.scheduler.wait_idle(_MAX_WARM_UP_S)
            await self._require_sound_model()
            parts.ready.set()
            self._notifier.ready()
            log.info("ready: %d symbols", len(parts.market.symbols))
            group.create_task(parts.backfill.run(), name="backfill")
            group.create_task(parts.backfill.request_overdue(), name="overdue")
            group.create_task(parts.health.run(), name="health")
            group.create_task(parts.forming.run(), name="forming")
            group.create_task(parts.cache_warmer.run(), name="cache-warmer")
            group.create_task(
                parts.learned_state.run(lambda: parts.table.served), name="learned-state"
            )
            group.create_task(parts.hot_swap.run(), name="hot-swap")
            group.create_task(parts.reloader.run(), name="reload")
            if settings.registry.shadow:
                group.create_task(parts.shadow.run(), name="shadow")
            if self._notifier.is_enabled:
                scheduler, summary = parts.scheduler, parts.health.summary
                progress = report_progress(
                    self._notifier, parts.clock, scheduler.ping, scheduler.stuck_s, summary
                )
                group.create_task(progress, name="notify")

    async def _restore(self) -> None:
        """Restore what the last process published and what its model had learned."""
        parts = self.parts
        await restore_published(
            recorder=parts.recorder,
            market=parts.market,
            accuracy=parts.accuracy,
            issuer=parts.issuer,
            path=self._settings.state_dir / "last-published",
            window=self._settings.accuracy.window,
        )
        await parts.learned_state.restore(parts.table.served)
        # The first candle may take an hour to close: until then the metric must raise no alarm.
        now_ms = parts.clock.wall_ms()
        step_ms = parts.market.timeframe.ms
        parts.metrics.forecasts.set_last_prediction(
            parts.issuer.last_published.newest_ms(step_ms, now_ms)
        )

    async def _require_sound_model(self) -> None:
        """Compare the model's forecasts from recent history with the last value.

        Raises:
            Unservable: forecasts of some symbol must not be published.
        """
        found = await self.parts.pipeline.check_model()
        if found:
            served = self.parts.table.served
            why = summary(served.symbols, found, len(served.symbols))
            raise await asyncio.to_thread(make_unservable, self._settings.registry_dir, why)

    async def _shut_down(self, tasks: list[asyncio.Task[None]]) -> None:
        """Stop taking in candles, send what is ready, announce the end, save what was learned."""
        parts = self.parts
        self._notifier.stopping()
        *edges, forecasts = tasks
        forecasts.cancel()
        await parts.publisher.shutdown(_SHUTDOWN_TIMEOUT_S)
        await parts.learned_state.save(parts.table.served)
        for task in edges:
            task.cancel()
