"""Serve a loaded model: hold each symbol's newest scaled rows and forecast from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.core.errors import BundleError
from model.features.scaler import BoundScaler, SymbolScaler
from model.features.streaming import FeatureBank
from model.forecasts.calibration import Calibration
from model.forecasts.forecast import ModelInfo
from model.forecasts.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from model.forecasts.outlook import Outlook
    from model.inference.engine import Engine
    from model.registry.registry import Bundle

    Floats = npt.NDArray[np.float64]
    Index = npt.NDArray[np.intp]

DRY_RUN_SYMBOLS: Final = 8
"""`ServedModel.dry_run` takes at most this many symbols, the first ones."""


class ModelOutput(NamedTuple):
    """What a model gives for k candles.

    Attributes:
        raw: output of the network, ``[k]``.
        price: the next close that it means, ``[k]``.
        last_close: the close that it starts from, ``[k]``.
        outlook: interval and probabilities.
        out_of_range: share of scaled values outside what the scaler was fitted on, ``[k]``.
    """

    raw: npt.NDArray[np.float32]
    price: Floats
    last_close: Floats
    outlook: Outlook
    out_of_range: Floats


class ServedModel:
    """One bundle serving a fixed list of symbols: scaler, features, network and calibration.

    Symbols are addressed by their position in ``symbols``; every method is vectorized over them.
    A closed candle is either appended (`advance`) or, when the window changed in any other way,
    everything derived from it is derived anew (`rebuild`).
    """

    def __init__(
        self,
        bundle: Bundle,
        symbols: Sequence[str],
        engine: Engine,
        rules: Rules = DEFAULT_RULES,
        *,
        fit_unknown: bool = False,
    ) -> None:
        """Bind a verified bundle to symbols that its scalers know.

        Args:
            bundle: the opened bundle.
            symbols: ccxt symbols; their order is the index of every other method.
            engine: the compiled network of the same bundle, sized for ``len(symbols)``.
            rules: what intervals and probabilities shall be.
            fit_unknown: accept other symbols too; their scalers are fitted to the first window
                that they are rebuilt from, and stay.

        Raises:
            BundleError: a symbol that the bundle does not know, without ``fit_unknown``.
        """
        manifest = bundle.manifest
        self.version = bundle.version
        self.sha256 = bundle.sha256
        self.target = manifest.target
        self.lookback = manifest.lookback
        self.n_features = len(manifest.features)
        self._features = manifest.features, manifest.indicators
        self._bank = FeatureBank(*self._features, len(symbols))
        self.calibration = Calibration(bundle.residuals, symbols, rules)
        self._dry_run = Calibration(bundle.residuals, symbols[:DRY_RUN_SYMBOLS], rules)
        self._scaler = bundle.scalers.bind(symbols, fit_unknown=fit_unknown)
        self.symbols = tuple(symbols)
        self._slots = {symbol: slot for slot, symbol in enumerate(symbols)}
        self._newly_fitted: list[str] = []
        identity = bundle.version, bundle.sha256, manifest.target
        self.infos = [ModelInfo(*identity, not known) for known in self._scaler.fitted.tolist()]
        self._engine = engine
        n, lookback, n_features = len(symbols), manifest.lookback, len(manifest.features)
        # Rings: row `head` is the oldest and the next to be overwritten.
        self._rows = np.zeros((n, lookback, n_features), dtype=np.float32)
        self._outside = np.zeros((n, lookback), dtype=np.float32)
        self._head = np.zeros(n, dtype=np.intp)
        self._stamp = np.zeros(n, dtype=np.int64)
        self._order = np.arange(lookback, dtype=np.intp)

    def warm(self) -> None:
        """Run the network once at every batch size; safe in a worker thread."""
        self._engine.warm()

    def rebuild(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> None:
        """Derive rows from whole windows.

        Args:
            idx: positions of the symbols, shape ``(k,)``.
            ohlcv: their windows, shape ``(k, warm-up + lookback, 5)``, newest last.
        """
        for _ in self.rebuilding(idx, ohlcv):
            pass

    def rebuilding(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> Iterator[None]:
        """Do as `rebuild` does, a row whenever the next one is asked for.

        Until it has ended, the rows of these symbols are of no use.
        """
        yield from self._fitting(idx, ohlcv)
        self.calibration.prime(idx, ohlcv)
        first = ohlcv.shape[1] - self.lookback
        for row, features in enumerate(self._bank.priming(idx, ohlcv)):
            if row >= first:
                self._place(idx, row - first, features)
            yield
        self._head[idx] = 0
        # Two steps, so that states prepared before can match neither this window nor its successor.
        self._stamp[idx] += 2

    def _fitting(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> Iterator[None]:
        """Fit the scalers of symbols that have none, a row whenever the next one is asked for."""
        new = ~self._scaler.fitted[idx]
        if not new.any():
            return
        rows = []
        for features in self._bank.priming(idx[new], ohlcv[new]):
            rows.append(features)
            yield
        self._scaler.fit(idx[new], np.stack(rows, axis=1), ohlcv[new, :, 3], self.target)
        fitted = set(idx[new].tolist())
        self._newly_fitted += [symbol for symbol, slot in self._slots.items() if slot in fitted]

    def take_fitted(self) -> dict[str, bytes]:
        """Scalers that were fitted since this was last asked, by symbol, for `restore_scalers`."""
        names, self._newly_fitted = self._newly_fitted, []
        return {name: self._scaler.take(self._slots[name]).encode() for name in names}

    def restore_scalers(self, states: Mapping[str, bytes]) -> list[str]:
        """Scale symbols that the bundle does not know as an earlier process did.

        Returns:
            Symbols whose saved scaler was of no use: they are fitted anew.
        """
        refused = []
        for symbol, slot in self._slots.items():
            if symbol not in states or self._scaler.fitted[slot]:
                continue
            try:
                saved = BoundScaler([SymbolScaler.decode(states[symbol], self.n_features)])
            except BundleError:
                refused.append(symbol)
            else:
                self._scaler.adopt(np.array([slot]), saved, np.array([0]))
        return refused

    def adopt_scalers(self, other: ServedModel) -> None:
        """Scale as another one of the same bundle does, for the symbols that both have."""
        pairs = [(slot, other._slots[s]) for s, slot in self._slots.items() if s in other._slots]
        mine, theirs = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        self._scaler.adopt(mine, other._scaler, theirs)

    def advance(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> None:
        """Append one closed candle to each symbol; ``idx`` holds no symbol twice.

        Args:
            idx: positions of the symbols, shape ``(k,)``.
            ohlcv: the closed candles, shape ``(k, 5)``.
        """
        self.calibration.observe(idx, ohlcv)
        self._place(idx, self._head[idx], self._bank.commit(idx, ohlcv))
        self._head[idx] = (self._head[idx] + 1) % self.lookback
        self._stamp[idx] += 1

    def _place(self, idx: Index, position: int | Index, features: npt.NDArray[np.float64]) -> None:
        self._rows[idx, position] = self._scaler.scale(idx, features)
        self._outside[idx, position] = self._scaler.out_of_range(idx, features).mean(axis=1)

    def prepared(self, idx: Index) -> npt.NDArray[np.bool_]:
        """For which symbols all but the newest row has been run ahead of time, shape ``(k,)``."""
        return self._engine.prepared(idx, self._stamp[idx] - 1)

    def prepared_ahead(self, idx: Index) -> npt.NDArray[np.bool_]:
        """For which symbols the states wait for the candle that is forming, shape ``(k,)``."""
        return self._engine.prepared(idx, self._stamp[idx])

    def peek(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Raw network output as if forming candles closed now, shape ``(k,)``; leaves no trace.

        Args:
            idx: positions of symbols that are `prepared_ahead`, shape ``(k,)``.
            ohlcv: their forming candles, shape ``(k, 5)``.
        """
        return self._engine.step(idx, self._scaler.scale(idx, self._bank.peek(idx, ohlcv)))

    def dry_run(self, idx: Index, ohlcv: Floats, open_ms: npt.NDArray[np.int64]) -> ModelOutput:
        """Compute as for closed candles, which warms the caches; keeps nothing.

        Args:
            idx: positions below `DRY_RUN_SYMBOLS`, shape ``(k,)``; output of symbols that are not
                prepared has no meaning.
            ohlcv: any candles, shape ``(k, 5)``.
            open_ms: when those that follow them open, Unix milliseconds, shape ``(k,)``.
        """
        last = ohlcv[:, 3]
        self._dry_run.observe(idx, ohlcv)
        raw = self.peek(idx, ohlcv)
        price = self.price(idx, raw, last)
        outlook = self._dry_run.outlook(idx, price, last, open_ms)
        return ModelOutput(raw, price, last, outlook, self.out_of_range(idx))

    def step(self, idx: Index) -> npt.NDArray[np.float32]:
        """Raw network output for prepared symbols, shape ``(k,)``: one step each."""
        newest = (self._head[idx] - 1) % self.lookback
        return self._engine.step(idx, self._rows[idx, newest])

    def windows(self, idx: Index) -> npt.NDArray[np.float32]:
        """Copies of the scaled windows in time order, shape ``(k, lookback, n_features)``."""
        order = (self._head[idx][:, None] + self._order) % self.lookback
        rows: npt.NDArray[np.float32] = self._rows[idx[:, None], order]
        return rows

    def full(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Raw network output of whole windows, shape ``(k,)``; safe in a worker thread."""
        return self._engine.full(windows)

    def preparation(self, idx: Index) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The rows that the next forecast of these symbols will share, and their stamps.

        Taken on the path's own thread, so that `prepare` may run in another one.
        """
        # Stamps first: should a rebuild run meanwhile, the rows then carry an outdated stamp.
        stamps = self._stamp[idx]
        return self.windows(idx)[:, 1:], stamps

    def prepare(
        self,
        idx: Index,
        windows: npt.NDArray[np.float32],
        stamps: npt.NDArray[np.int64],
    ) -> None:
        """Run what `preparation` handed out and keep the states; safe in a worker thread."""
        self._engine.prepare(idx, windows, stamps)

    def price(
        self, idx: Index, raw: npt.NDArray[np.float32], last_close: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Turn raw network output into prices, shape ``(k,)``.

        Args:
            idx: positions of the symbols, shape ``(k,)``.
            raw: network output, shape ``(k,)``.
            last_close: closes that the forecasts start from, shape ``(k,)``.
        """
        value = self._scaler.unscale_target(idx, raw)
        # What overflows is no price, and is withheld.
        with np.errstate(over="ignore", invalid="ignore"):
            return value if self.target == "close" else last_close * np.exp(value)

    def recent_prices(
        self, idx: Index, ohlcv: Floats, count: int
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """The forecasts from each of the newest ``count`` windows; safe in a worker thread.

        The older ones are from features that have had a little less time to settle.

        Args:
            idx: positions of symbols whose scalers are fitted, shape ``(k,)``.
            ohlcv: their candles, shape ``(k, rows, 5)``, newest last.
            count: windows of each symbol; fewer where there are not so many rows.

        Returns:
            Prices ``(k, count)``, and which of them are from inputs that are numbers.
        """
        count = min(count, ohlcv.shape[1] - self.lookback + 1)
        first = ohlcv.shape[1] - self.lookback - count + 1
        bank = FeatureBank(*self._features, len(idx))
        rows, sound = [], []
        with np.errstate(all="ignore"):
            for row, features in enumerate(bank.priming(np.arange(len(idx)), ohlcv)):
                if row >= first:
                    rows.append(self._scaler.scale(idx, features))
                    sound.append(np.isfinite(features).all(axis=1))
            every = np.lib.stride_tricks.sliding_window_view(
                np.stack(rows, axis=1), self.lookback, axis=1
            )
            windows = np.ascontiguousarray(every.transpose(0, 1, 3, 2))
            raw = self.full(windows.reshape(-1, *windows.shape[2:]))
            of = np.repeat(idx, count)
            price = self.price(of, raw, ohlcv[:, -count:, 3].ravel())
        good = np.lib.stride_tricks.sliding_window_view(
            np.stack(sound, axis=1), self.lookback, axis=1
        )
        whole: npt.NDArray[np.bool_] = np.all(good, axis=2)
        return price.reshape(len(idx), count), whole

    def is_fitted(self, idx: Index) -> npt.NDArray[np.bool_]:
        """Which symbols have a scaler, shape ``(k,)``."""
        return self._scaler.fitted[idx]

    def trained_closes(self, idx: Index) -> tuple[Floats, Floats] | None:
        """The least and greatest close that the model knows; None if it is shown no close."""
        if "close" not in self._features[0]:
            return None
        return self._scaler.fitted_range(idx, self._features[0].index("close"))

    def fresh_rows(
        self, stamps: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The newest scaled row of each symbol that has moved since.

        Args:
            stamps: what this returned last; of any other shape: nothing has been seen yet.

        Returns:
            Rows ``[k, n_features]``, and the stamps for the next time.
        """
        now = self._stamp.copy()
        seen = stamps if stamps.shape == now.shape else np.zeros_like(now)
        moved = np.flatnonzero(now != seen)
        return self._rows[moved, (self._head[moved] - 1) % self.lookback], now

    def mean_out_of_range(self) -> float:
        """The mean of `out_of_range` over the symbols that have been derived; NaN without any."""
        seen = np.flatnonzero(self._stamp)
        return float(self.out_of_range(seen).mean()) if len(seen) else float("nan")

    def out_of_range(self, idx: Index) -> npt.NDArray[np.float64]:
        """Share of each window's values outside the range the scaler was fitted on, ``(k,)``."""
        share: npt.NDArray[np.float64] = self._outside[idx].mean(axis=1, dtype=np.float64)
        return share
