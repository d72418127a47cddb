"""Define the LSTM network and train, evaluate and export it; the only user of Keras.

Keras 3 alone is called, nothing of its backends: TensorFlow, JAX and PyTorch all serve, as the
environment variable `KERAS_BACKEND` says; without it JAX where it is installed, else TensorFlow.
"""

from __future__ import annotations

import importlib
import logging
import os
import runpy
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.core.errors import ConfigError
from model.features.sliding_windows import Batches
from model.files.keras_archive import check_keras_file
from model.preprocess import features_of, target_of
from model.reference_config import load_config
from model.stats.scores import scaled_metrics
from model.training.arguments import input_shape as checked_shape
from model.training.arguments import intact, pair, sequences
from model.training.callbacks import dataset, drawing, pausing, resuming, showing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import keras
    from numpy.typing import ArrayLike, NDArray

    from model.features.sliding_windows import Windows
    from model.inference.onnx_export import LstmWeights
    from model.training.arguments import Shape
    from model.training.checkpoint import TrainingCheckpoint

_log = logging.getLogger("candlecast.lstm_model")

_PREDICT_BATCH: Final = 256
"""Windows that are run at once: more are no faster, and `pause` would have to wait for them."""
_DEFAULT_LOSS: Final = {"close": "mse", "log_return": "mae"}
"""Forecasts are judged by the absolute error, and the fat tails of returns rule a squared one."""


class LSTMPricePredictor:
    """Stacked LSTM that predicts the next period's target.

    Windows and targets may be anything that NumPy reads as an array of numbers, and are taken in
    their order. A call with anything else raises `ValueError` and leaves the predictor as it was.

    Attributes:
        config: the configuration; `model` and `indicators` have every key. Changes made before
            `build_model` count.
        model: the Keras model, None until built or loaded.
        history: the Keras training history, None until trained.
        checkpoint_path: where `train` keeps the best model so far.
        resume: where `train` notes after every epoch how far it is, to go on from there after a
            kill; None: nowhere.
        pause: called after every batch, of training or of forecasts; may take its time.

    Args:
        config_path: YAML configuration file.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is not a configuration.
    """

    def __init__(self, config_path: str | Path = "config/config.yaml") -> None:
        self.config = load_config(config_path)
        self.model: keras.Model | None = None
        self.history: keras.callbacks.History | None = None
        self.checkpoint_path = Path("models/checkpoints/best_model.keras")
        self.resume: TrainingCheckpoint | None = None
        self.pause: Callable[[], None] = _go_on

    def build_model(self, input_shape: tuple[int, int]) -> keras.Model:
        """Build and compile the network, keep it as `model` and print its summary.

        Args:
            input_shape: ``(timesteps, features)``.

        Returns:
            The compiled `keras.Sequential`: LSTM and dropout per entry of `model.lstm_units`, then
            Dense(1).

        Raises:
            ValueError: it is not two numbers above 0.
        """
        steps_and_features = checked_shape(input_shape)
        keras = _keras()
        settings = self.config["model"]
        units = settings["lstm_units"]
        if not units:
            msg = "model.lstm_units is empty; list the units of at least one layer, e.g. [64, 32]"
            raise ConfigError(msg)
        _seed(keras, settings["seed"])
        # Named by hand: Keras numbers layers by how many the process has made before.
        model = keras.Sequential([keras.Input(shape=steps_and_features)], name="sequential")
        for position, width in enumerate(units):
            suffix = f"_{position}" if position else ""
            more = position < len(units) - 1
            model.add(keras.layers.LSTM(width, return_sequences=more, name=f"lstm{suffix}"))
            model.add(keras.layers.Dropout(settings["dropout_rate"], name=f"dropout{suffix}"))
        model.add(keras.layers.Dense(1, name="dense"))
        model.compile(
            optimizer=keras.optimizers.Adam(learning_rate=settings["learning_rate"]),
            loss=settings["loss"] or _DEFAULT_LOSS[target_of(self.config)],
            metrics=["mae"],
        )
        self.model = model
        model.summary()
        return model

    def train(
        self,
        X_train: ArrayLike | Windows,
        y_train: ArrayLike,
        X_val: ArrayLike | Windows | None = None,
        y_val: ArrayLike | None = None,
    ) -> keras.callbacks.History:
        """Train, building the network first if need be, and keep the best weights.

        Each epoch takes the samples in an order of its own, which `model.seed` decides. Watches
        `val_loss`, or `loss` without validation data: after 5 epochs without a better one the
        learning rate is halved, after 10 training stops. The best model so far is saved to
        `checkpoint_path`.

        Args:
            X_train: sequences, ``(n_samples, timesteps, features)``.
            y_train: targets, ``(n_samples,)``.
            X_val: validation sequences.
            y_val: validation targets.

        Returns:
            The training history, also kept as `history`.

        Raises:
            ValueError: shapes that do not fit together, or values that are not finite numbers.
        """
        keras = _keras()
        settings = self.config["model"]
        standing = None if self.resume is None else self.resume.load()
        x, y = pair("train", X_train, y_train, None if standing else self._window_shape())
        validation = None
        if X_val is not None or y_val is not None:
            validated = pair("val", X_val, y_val, x.shape[1:])
            validation = dataset(keras, Batches(*validated, _PREDICT_BATCH))
        if standing:
            self.load_model(standing.model)
        model = self.model or self.build_model(x.shape[1:])
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        first = standing.epoch if standing else 0
        print(f"Training model for up to {settings['epochs']} epochs..." + _from(first))
        batches = Batches(x, y, settings["batch_size"])
        watching = self.callbacks("loss" if validation is None else "val_loss")
        more = [showing(keras, settings["epochs"], batches), pausing(keras, self.pause)]
        if self.resume is not None:
            more.insert(0, resuming(keras, self.resume, watching, standing))
        with intact(model):
            self.history = model.fit(
                dataset(keras, batches),
                validation_data=validation,
                epochs=settings["epochs"],
                initial_epoch=first,
                shuffle=False,
                callbacks=[drawing(keras, batches, settings["seed"]), *watching, *more],
                verbose=0,
            )
        if self.resume is not None:
            self.history.history = self.resume.losses
        return self.history

    def callbacks(self, monitor: str) -> list[keras.callbacks.Callback]:
        """What `train` does besides: stop early, lower the learning rate, keep the best model.

        Args:
            monitor: the watched loss.
        """
        callbacks = _keras().callbacks
        return [
            callbacks.EarlyStopping(
                monitor=monitor, patience=10, restore_best_weights=True, verbose=1
            ),
            callbacks.ReduceLROnPlateau(
                monitor=monitor, factor=0.5, patience=5, min_lr=1e-7, verbose=1
            ),
            callbacks.ModelCheckpoint(
                str(self.checkpoint_path), monitor=monitor, save_best_only=True
            ),
        ]

    def predict(self, X: ArrayLike | Windows) -> NDArray[np.float32]:
        """The network's raw output, ``(n_samples, 1)``.

        Args:
            X: sequences, ``(n_samples, timesteps, features)``.

        Raises:
            ValueError: there is no model yet, windows of another shape than the model's, or values
                that are not finite numbers.
        """
        model = self._trained()
        return self._run(model, sequences("X", X, self._window_shape()))

    def _trained(self) -> keras.Model:
        if self.model is None:
            msg = "the model is not trained: call train() or load_model() first"
            raise ValueError(msg)
        return self.model

    def _run(self, model: keras.Model, x: NDArray[Any] | Windows) -> NDArray[np.float32]:
        """The output for windows that have been checked."""
        if not len(x):
            return np.empty((0, 1), dtype=np.float32)
        keras = _keras()
        with intact(model):
            output = model.predict(
                dataset(keras, Batches(x, None, _PREDICT_BATCH)),
                callbacks=[pausing(keras, self.pause)],
                verbose=0,
            )
        return np.asarray(output, dtype=np.float32)

    def _window_shape(self) -> Shape | None:
        """``(timesteps, features)`` of the model's windows; None where it does not say."""
        shape = getattr(self.model, "input_shape", None)
        return tuple(shape[1:]) if isinstance(shape, tuple) else None

    def evaluate(self, X_test: ArrayLike | Windows, y_test: ArrayLike) -> dict[str, float]:
        """Errors on test data in scaled units, printed beside those of the last-value forecast.

        Args:
            X_test: sequences, ``(n_samples, timesteps, features)``.
            y_test: true targets, ``(n_samples,)``.

        Returns:
            `mse`, `mae`, `rmse`, and `direction_accuracy`: how often consecutive differences of
            forecast and truth have the same sign (0 … 1, NaN for one sample).

        Raises:
            ValueError: there is no model yet, shapes that do not fit together, or values that are
                not finite numbers.
        """
        model = self._trained()
        x, y = pair("test", X_test, y_test, self._window_shape())
        metrics = scaled_metrics(self._run(model, x)[:, 0], y)
        returns = target_of(self.config) == "log_return"
        print("Evaluation Metrics:")
        for name, value in metrics.items():
            if not (returns and name == "direction_accuracy"):
                print(f"{name}: {value:.6f}")
        names = features_of(self.config)
        if returns:
            _log.info(
                "direction_accuracy is not shown: it compares consecutive differences, and on "
                "returns a worthless forecast of -0.01 x the last return scores about 0.66"
            )
            _print_last_value(np.zeros(len(y)), y, metrics["mae"])
        elif "close" in names and x.shape[2] == len(names):
            batches, column = Batches(x, None, _PREDICT_BATCH), names.index("close")
            last = [batches[index][0][:, -1, column] for index in range(len(batches))]
            _print_last_value(np.concatenate(last), y, metrics["mae"])
        return metrics

    def plot_training_history(self, save_path: str | Path = "models/training_history.png") -> None:
        """Save loss and MAE by epoch as a two-panel figure; without a history, do nothing."""
        if self.history is None:
            return
        from model.training.history_plot import plot_history

        plot_history(self.history.history, Path(save_path))
        print(f"Training history plot saved to {save_path}")

    def save_model(self, filepath: str | Path = "models/lstm_model.keras") -> None:
        """Save architecture, weights and optimizer state; `load_model` takes `.keras` alone.

        Raises:
            ValueError: there is no model yet.
        """
        if self.model is None:
            msg = "there is no model to save: call train() or load_model() first"
            raise ValueError(msg)
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.model.save(path)
        print(f"Model saved to {path}")

    def load_model(self, filepath: str | Path = "models/lstm_model.keras") -> None:
        """Load a saved model, ready for `predict`, `evaluate` or more training.

        Raises:
            OSError: there is no such file.
            ValueError: it is corrupt, of an incompatible Keras, not `.keras`, or holds anything but
                Keras's own plain layers.
        """
        path = Path(filepath)
        check_keras_file(path)
        keras = _keras()
        try:
            # safe_mode stays on, though it has been broken before: the check above is what keeps
            # code out of the file, and bundles are verified by hash before they come here.
            self.model = keras.saving.load_model(path, safe_mode=True)
        except (TypeError, ValueError, KeyError, OSError) as error:
            msg = f"{path} cannot be loaded by Keras {keras.__version__}: {error}"
            raise ValueError(msg) from error

    def lstm_weights(self) -> LstmWeights:
        """The weights as plain arrays, for export.

        Raises:
            ValueError: there is no model yet, or it is not LSTM layers followed by Dense(1).
        """
        from model.inference.onnx_export import LstmLayer, LstmWeights

        if self.model is None:
            msg = "there is no model to export: call train() or load_model() first"
            raise ValueError(msg)
        layers = [layer for layer in self.model.layers if layer.weights]
        if not _exportable(layers):
            msg = "only plain LSTM layers followed by Dense(1) can be exported"
            raise ValueError(msg)
        *recurrent, dense = layers
        kernel, bias = dense.get_weights()
        return LstmWeights(
            layers=tuple(LstmLayer(*layer.get_weights()) for layer in recurrent),
            dense_kernel=kernel,
            dense_bias=bias,
        )


def _go_on() -> None:
    """The pause of whoever has the machine to itself."""


def _from(epoch: int) -> str:
    return f" going on after epoch {epoch}" if epoch else ""


def _print_last_value(last: NDArray[Any], y: NDArray[Any], mae: float) -> None:
    error = float(np.mean(np.abs(last - y)))
    ratio = mae / error if error > 0.0 else float("nan")
    print(f"mae of the last-value forecast: {error:.6f} (model / last value: {ratio:.4f})")


def _keras() -> ModuleType:
    # Before the first import: TensorFlow writes pages of start-up notes to stderr otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Where it is installed, JAX: on a CPU it learns the same in less than half the time.
    if find_spec("jax") is not None:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        # It tells of every kind of accelerator that it looked for and did not find.
        logging.getLogger("jax").setLevel(logging.WARNING)
    return importlib.import_module("keras")


def _exportable(layers: Sequence[Any]) -> bool:
    """Whether weighted layers are LSTMs with Keras's default settings and Dense(1) at the end."""
    kinds = _keras().layers
    expected = [kinds.LSTM] * (len(layers) - 1) + [kinds.Dense]
    if len(layers) == 1 or [type(layer) for layer in layers] != expected:
        return False
    plain = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    plain |= {"go_backwards": False, "stateful": False}
    settings = [layer.get_config() for layer in layers]
    dense = settings.pop()
    return (dense["units"], dense["activation"], dense["use_bias"]) == (1, "linear", True) and all(
        plain.items() <= layer.items() for layer in settings
    )


def _seed(keras: ModuleType, seed: int | None) -> None:
    if seed is not None:
        keras.utils.set_random_seed(seed)


if __name__ == "__main__":
    # A module of a higher layer: an import of it would close a circle.
    runpy.run_module("model.train_lstm", run_name="__main__", alter_sys=True)
