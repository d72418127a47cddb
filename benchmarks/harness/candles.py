"""Read the candles that the model benchmarks use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

_SANDBOX: Final = Path(__file__).parents[2] / "daemon" / "sandbox" / "data"
_FILES: Final = {"15m": "slim_BTCUSDT-15m_2025-01_05.csv.gz", "1h": "slim_BTCUSDT-1h_2024.csv.gz"}


def read_sandbox(timeframe: str) -> pd.DataFrame:
    """The project's own BTC/USDT candles, ``15m`` (five months) or ``1h`` (a year)."""
    import pandas as pd

    return _as_pipeline(pd.read_csv(_SANDBOX / _FILES[timeframe]))


def read_folder(folder: Path) -> dict[str, pd.DataFrame]:
    """Recorded candles by symbol, cut to their common span.

    Args:
        folder: Parquet files named ``BTC_USDT-1m.parquet`` with ``ts`` (opening time, ms), open,
            high, low, close, volume.

    Raises:
        ValueError: no such file, or a gap.
    """
    import pandas as pd

    frames = {
        path.name.split("-")[0].replace("_", "/"): pd.read_parquet(path)
        for path in sorted(folder.glob("*.parquet"))
    }
    if not frames:
        msg = f"no Parquet files in {folder}"
        raise ValueError(msg)
    first = max(frame["ts"].iloc[0] for frame in frames.values())
    last = min(frame["ts"].iloc[-1] for frame in frames.values())
    cut = {
        symbol: _as_pipeline(frame[frame["ts"].between(first, last)].reset_index(drop=True))
        for symbol, frame in frames.items()
    }
    if len({len(frame) for frame in cut.values()}) != 1:
        msg = f"the files in {folder} have gaps: their candles do not line up"
        raise ValueError(msg)
    return cut


def _as_pipeline(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that the training pipeline reads."""
    import pandas as pd

    frame = frame.rename(columns={"ts": "timestamp"})
    return frame.assign(datetime=pd.to_datetime(frame["timestamp"], unit="ms"))
