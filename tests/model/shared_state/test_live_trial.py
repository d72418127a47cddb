"""Test the files of a live trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model.shared_state.live_trial import RECORD, Tally, Trial, TrialFiles

T0 = 1_776_859_200_000


def test_a_truncated_file_loses_only_its_last_record(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path / "trial")
    assert files.current() is None
    assert len(files.losses().symbol) == 0
    trial = Trial("20261123T020000Z-3f9a1c", "20261122T020000Z-3f9a1c", ("A/U", "B/U"))
    files.begin(trial)
    records: Any = np.array([(0, T0, 1.0, 2.0, 3.0), (1, T0, 4.0, 5.0, 6.0)], RECORD)
    files.append(records)
    path = tmp_path / "trial" / "losses"
    path.write_bytes(path.read_bytes()[:-7])
    assert files.losses().symbol.tolist() == [0]
    files.append(records[1:])
    again = TrialFiles(tmp_path / "trial")
    assert again.current() == trial
    assert again.losses().symbol.tolist() == [0, 1]
    tally = Tally(again.losses())
    assert (tally.candles, tally.challenger, tally.champion) == (1, 7.0, 9.0)
    (tmp_path / "trial" / "trial.json").write_text("{")
    assert again.current() is None
    again.begin(trial)
    assert len(again.losses().symbol) == 0
