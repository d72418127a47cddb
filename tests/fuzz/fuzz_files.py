"""Fuzz files: configuration, candles, bundles, scalers, the history and a saved calibration."""

from __future__ import annotations

import gzip
import json
import pickle
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from config.settings import load
from daemon.sandbox.recording import load_recording
from model.core.candle import Candle, Ohlcv, Timeframe, check_ohlcv
from model.core.errors import BundleError, CandlecastError, ConfigError, HistoryError
from model.core.market import MarketKey
from model.features.definitions import FEATURES, OHLCV, Indicators
from model.features.scaler import ScalerSet, SymbolScaler
from model.features.sklearn_scaler import load_pickle
from model.files.candle_csv import HEADER, csv_name, csv_row, parse_csv_name, symbol_in
from model.files.csv_reader import STRICT, FileRules
from model.forecasts.calibration import Calibration, Snapshot
from model.forecasts.residuals import Residuals
from model.forecasts.rules import Rules
from model.history.rows import FittedScaler, Rows
from model.history.store import History
from model.registry.manifest import Manifest
from model.shared_state.retrain_status import RetrainStatus
from model.training.candle_sources import read_candles
from tests.fuzz.target import Target

MINUTE = Timeframe.parse("1m")
MARKET = MarketKey("binance", MINUTE)
T = 1_700_000_040_000
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - ten thousand small files a second


def file_of(parse: Callable[[Path], Any], name: str) -> Callable[[bytes], None]:
    """Parse the input as a file of that name."""
    folder: list[tempfile.TemporaryDirectory[str]] = []

    def one_input(data: bytes) -> None:
        if not folder:
            where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
            folder.append(tempfile.TemporaryDirectory(prefix="candlecast-fuzz-", dir=where))
        path = Path(folder[0].name) / name
        path.write_bytes(data)
        parse(path)

    return one_input


@contextmanager
def refusing(kind: type[CandlecastError], where: object) -> Iterator[None]:
    """Accept one kind of error, which must name its place."""
    try:
        yield
    except kind as error:
        if str(where) not in str(error):
            raise AssertionError(error) from error


def configuration(path: Path) -> None:
    """`config.yaml`, and values of the environment."""
    with refusing(ConfigError, path):
        load(path, {})
    text = path.read_bytes().decode(errors="replace")
    path.write_bytes(b"")
    with refusing(ConfigError, "CANDLECAST__TRADING__SYMBOLS"):
        load(path, {"CANDLECAST__TRADING__SYMBOLS": text})


def candle_csv(path: Path) -> None:
    """A file of candles, as training and as the sandbox read it."""
    for rules in (STRICT, FileRules(0.9, _finds)):
        with refusing(CandlecastError, path):
            read = read_candles(path, MINUTE, rules, "A/B")
            assert (np.diff(read["timestamp"]) == MINUTE.ms).all()
            assert all(map(check_ohlcv, read[list(OHLCV)].itertuples(index=False, name=None)))
        with refusing(CandlecastError, path):
            load_recording(path, rules)


def _finds(line: str) -> None:
    """Take a note about a file: one line."""
    assert len(line.splitlines()) == 1


def candle_name(data: bytes) -> None:
    """The name of a candle file; what is taken comes back the same."""
    path = Path(data.decode(errors="replace").replace("/", "").replace("\0", "") or "x")
    name = parse_csv_name(path)
    if name is not None:
        again = csv_name(name.symbol, name.timeframe, T, T)
        assert parse_csv_name(Path(again)) == name._replace(last_day="20231114")
        return
    with refusing(ConfigError, path):
        assert symbol_in(path, ("A/B", "BTC/USDT")) in {"A/B", "BTC/USDT"}


def manifest(data: bytes) -> None:
    """`manifest.json` of a bundle; what is taken comes back the same."""
    try:
        read = Manifest.from_json(data)
    except BundleError:
        return
    assert Manifest.from_json(read.to_json()) == read


def scaler(data: bytes) -> None:
    """`scaler.json` of a bundle."""
    try:
        read = ScalerSet.from_json(data)
    except BundleError:
        return
    assert ScalerSet.from_json(read.to_json()).to_json() == read.to_json()


def calibration(data: bytes) -> None:
    """`calibration.json` of a bundle."""
    try:
        read = Residuals.from_json(data)
    except BundleError:
        return
    assert Residuals.from_json(read.to_json()) == read


def retrain_status(path: Path) -> None:
    """`retrain.json`, which another process writes; what cannot be read is as if it were not."""
    RetrainStatus.read(path.parent)


def scaler_pickle(path: Path) -> None:
    """The reference's pickled scaler."""
    with refusing(BundleError, path):
        assert np.isfinite(load_pickle(path).data_min_).all()


def saved_state(data: bytes) -> None:
    """The state of a calibration, as stored in the history."""
    served = Calibration(Residuals(), ("A/B",), Rules(0.9, 0.005, 20, 0.001, 1.0))
    learnt = Snapshot.learnt(data)
    if not served.restore({"A/B": data}):
        assert Snapshot.learnt(served.snapshot().encode()["A/B"]) == learnt
    index = np.zeros(1, dtype=np.intp)
    price = np.ones(1)
    (bounds, chances) = served.outlook(index, price, price, np.array([T])).messages()[0]
    if bounds is not None and chances is not None:
        assert np.isfinite([bounds.lower, bounds.upper, *chances[1:]]).all()


def saved_scaler(data: bytes) -> None:
    """A scaler that was fitted while its model was at work, as the history keeps it."""
    try:
        read = SymbolScaler.decode(data, 2)
    except BundleError:
        return
    assert np.isfinite([*read.feature_min, *read.feature_max, read.target_scale]).all()
    assert read.encode() == data


def history(path: Path) -> None:
    """A database that was tampered with."""
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    with refusing(HistoryError, path), closing(History(path)) as opened:
        candles = opened.candles(MARKET, "A/B", 10)
        assert all(a.open_ms < b.open_ms for a, b in pairwise(candles))
        list(opened.outcomes(MARKET, 10))
        opened.calibration(MARKET, "0" * 64)
        opened.scalers(MARKET, "0" * 64)


def _candle(at: int) -> Candle:
    open_ms = T + at * MINUTE.ms
    ohlcv = Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0)
    return Candle("A/B", open_ms, open_ms + MINUTE.ms, ohlcv, open_ms + 60_010, 0.0, "rest")


def _database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.sqlite"
        opened = History(path)
        opened.add_candles(MARKET, [_candle(0), _candle(1)])
        model = "20261123T020000Z-3f9a1c", "0" * 64
        opened.save_calibration(MARKET, model, (T, {"A/B": _STATE}))
        scaler = FittedScaler(model, "A/B", T, _ranges().encode())
        opened.add(MARKET, Rows(scalers=[scaler]))
        opened.close()
        with sqlite3.connect(path) as plain:
            plain.execute("VACUUM")
        plain.close()
        return path.read_bytes()


def _manifest() -> bytes:
    return (
        Manifest(
            version="20261123T020000Z-3f9a1c", timeframe="1m", features=FEATURES[:2],
            indicators=Indicators(), target="log_return", lookback=60, units=(64, 32),
            symbols=("A/B",), metrics={"mae": 0.1}, trained_from_ms=T, trained_to_ms=T,
            data_sha256="0" * 64, libraries={"numpy": "2"}, files={"step.onnx": "0" * 64},
        )
        .to_json()
        .encode()
    )  # fmt: skip


def _ranges() -> SymbolScaler:
    return SymbolScaler(np.array([1.0, 2.0]), np.array([2.0, 3.0]), 0.0, 1.0)


def _scaler() -> bytes:
    return ScalerSet(FEATURES[:2], "log_return", {"A/B": _ranges()}).to_json().encode()


def _pickles() -> tuple[bytes, ...]:
    from sklearn.preprocessing import MinMaxScaler

    fitted = MinMaxScaler().fit(np.array([[1.0, 2.0], [2.0, 3.0]]))
    return tuple(pickle.dumps(fitted, protocol) for protocol in (3, 4, 5))


_STATE = np.array([0.0, 2.0, 0.1, 0.5, 0.7]).tobytes()
_CSV = "\n".join([HEADER, *(csv_row(T + at * MINUTE.ms, _candle(at).ohlcv) for at in (0, 1, 4))])
_CSVS = (
    _CSV.encode(),
    gzip.compress(_CSV.encode()),
    _CSV.replace(",", ";").replace(".", ",").encode(),
    "\n".join(f"{T * 1000 + at * 60_000_000},1,2,0.5,1.5,3" for at in range(4)).encode(),
    b"""a title
Date,Time,Open,High,Low,Close,Volume A,Volume B
2025.01.01,00:00,"1,000.5","1,001.25",999.5,1000,5,5000
2025.01.01,00:01,"1,000.5","1,001.25",999.5,1000,5,5000
""",
)
_YAML = (
    b"trading: {symbols: [BTC/USDT, 'A/B:C'], timeframe: 1m}\n",
    b"exchange:\n  name: okx\n  endpoint: {rest: 'http://127.0.0.1:1', ws: null}\n",
    b"mqtt: {[a]: 1}\n",
    b"mqtt: &a\n  port: 1883\nhttp:\n  <<: *a\nmodel: {lstm_units: [64, 32]}\n",
)

_RETRAIN = (
    json.dumps({"schema": 1, **asdict(RetrainStatus(T, 1.5, T, None, "v", gain=0.1))}).encode(),
)

TARGETS = {
    "config": Target(file_of(configuration, "config.yaml"), _YAML),
    "csv": Target(file_of(candle_csv, "candles.csv"), _CSVS),
    "csvname": Target(candle_name, (b"BTC-USDT_1m_20250101_to_20250102.csv", b"A-B%2D_1d.csv")),
    "manifest": Target(manifest, (_manifest(),)),
    "scaler": Target(scaler, (_scaler(),)),
    "calibration": Target(calibration, (Residuals().to_json().encode(),)),
    "retrain": Target(file_of(retrain_status, "retrain.json"), _RETRAIN),
    "pickle": Target(file_of(scaler_pickle, "scaler.pkl"), _pickles()),
    "state": Target(saved_state, (_STATE,)),
    "fitted": Target(saved_scaler, (_ranges().encode(),)),
    "history": Target(file_of(history, "history.sqlite"), (_database(),)),
}
