"""Test the model class on every installed Keras backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = """
import json, sys
import numpy as np
from model.features.sliding_windows import Windows
from model.lstm_model import LSTMPricePredictor
folder = sys.argv[1]
rng = np.random.default_rng(1)
X, y = rng.random((96, 12, 3), np.float32), rng.random(96).astype(np.float32)
predictor = LSTMPricePredictor(f"{folder}/config.yaml")
predictor.checkpoint_path = predictor.checkpoint_path.__class__(folder) / "best.keras"
if len(sys.argv) > 2:
    predictor.load_model(sys.argv[2])
else:
    predictor.train(X, y)
    predictor.save_model(f"{folder}/model.keras")
import keras  # only now: the model class picks the backend
report = {"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules,
          "predictions": predictor.predict(X)[:, 0].tolist()}
if len(sys.argv) > 2:
    windows = Windows(rng.random((200, 3), np.float32), np.arange(188), 12)
    targets = rng.random(188).astype(np.float32)
    report["before"] = predictor.predict(windows)[:, 0].tolist()
    report["losses"] = predictor.train(windows, targets, windows, targets).history
    report["trained"] = predictor.predict(windows)[:, 0].tolist()
print("REPORT" + json.dumps(report))
"""


def run(folder: Path, repository: Path, backend: str | None, *saved: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(
        "model: {target: close, lstm_units: [5, 4], epochs: 1, batch_size: 32, dropout_rate: 0}\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    if backend is not None:
        environment["KERAS_BACKEND"] = backend
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), *map(str, saved)],
        env=environment | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("REPORT"))
    report: dict[str, Any] = json.loads(line.removeprefix("REPORT"))
    return report


@pytest.mark.timeout(400)
def test_a_model_trained_on_one_backend_is_the_same_on_another(
    tmp_path: Path, repository: Path
) -> None:
    trained = run(tmp_path / "tf", repository, "tensorflow")
    assert trained["backend"] == "tensorflow"
    loaded = run(tmp_path / "jax", repository, None, tmp_path / "tf" / "model.keras")
    # JAX is what is taken where it is installed and nothing else is asked for.
    assert loaded["backend"] == "jax"
    assert not loaded["tensorflow"]
    np.testing.assert_allclose(
        np.array(trained["predictions"]), np.array(loaded["predictions"]), atol=1e-6
    )


@pytest.mark.timeout(400)
def test_stretches_train_the_same_model_on_every_backend(tmp_path: Path, repository: Path) -> None:
    run(tmp_path / "start", repository, None)
    start = tmp_path / "start" / "model.keras"
    one, other = (run(tmp_path / name, repository, name, start) for name in ("tensorflow", "jax"))
    assert (one["backend"], other["backend"]) == ("tensorflow", "jax")
    for name, values in other["losses"].items():
        assert one["losses"][name] == pytest.approx(values, rel=1e-4)
    assert one["trained"] == pytest.approx(other["trained"], abs=1e-4)
    # Training has changed the forecasts.
    assert one["trained"] != pytest.approx(one["before"], abs=1e-2)
