"""Define the LSTM network and train, evaluate and export it; the only user of Keras.

Only Keras 3 is called, never its backend: TensorFlow, JAX and PyTorch all work. The environment
variable `KERAS_BACKEND` chooses one; the default is JAX if installed, else TensorFlow.
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

from model.features.sliding_windows import Batches, Windows
from model.files.keras_archive import check_keras_file
from model.preprocess import features_of, target_of
from model.reference_config import load_config, trains_over_stretches
from model.stats.scores import scaled_metrics
from model.training.arguments import (
    check_input_shape,
    check_samples,
    check_sequences,
    restored_on_error,
)
from model.training.batching import (
    PREDICT_BATCH_SIZE,
    STRETCH_RATE,
    training_batches,
    validation_batches,
)
from model.training.callbacks import (
    batch_dataset,
    best_model_callback,
    checkpoint_callback,
    pause_callback,
    progress_callback,
    seeding_callback,
)
from model.training.network import build_network, network_weights, stretch_network
from model.training.progress import print_last_value

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    from numpy.typing import ArrayLike, NDArray

    from model.inference.onnx_export import LstmWeights
    from model.training.arguments import Shape
    from model.training.checkpoint import TrainingCheckpoint

_log = logging.getLogger("candlecast.lstm_model")

_DEFAULT_LOSS: Final = {"close": "mse", "log_return": "mae"}
"""By target. Returns have fat tails, which dominate a squared error."""


class LSTMPricePredictor:
    """Stacked LSTM that predicts the next period's target.

    Windows and targets may be anything that NumPy reads as an array of numbers. A call with other
    values raises `ValueError` and does not change the predictor.

    Attributes:
        config: the configuration; `model` and `indicators` have every key. Changes before
            `build_model` apply.
        model: the Keras model, None until built or loaded.
        history: the Keras training history, None until trained.
        checkpoint_path: file of the best model so far.
        resume: saves the state of `train` after every epoch, so that a killed run continues;
            None: the state is not saved.
        pause: called after every batch, of training or of forecasts; may block.

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
        self.pause: Callable[[], None] = _no_pause

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
        steps_and_features = check_input_shape(input_shape)
        keras = _keras()
        settings = self.config["model"]
        _seed(keras, settings["seed"])
        model = build_network(keras, steps_and_features, settings)
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
        """Train, after building the network if there is none, and keep the best weights.

        `model.seed` determines the order of the samples in each epoch. Monitors `val_loss`, or
        `loss` without validation data: after 5 epochs without improvement the learning rate is
        halved, after 10 training stops. The best model so far is saved to
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
        state = None if self.resume is None else self.resume.load()
        x, y = check_samples("train", X_train, y_train, None if state else self._window_shape())
        validation = None
        if X_val is not None or y_val is not None:
            validation = check_samples("val", X_val, y_val, x.shape[1:])
        if state:
            self.load_model(state.model)
        model = self.model or self.build_model(x.shape[1:])
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        first = state.epoch if state else 0
        print(f"Training model for up to {settings['epochs']} epochs..." + _resumed_text(first))
        stretched = isinstance(x, Windows) and trains_over_stretches(self.config)
        network = stretch_network(keras, model) if stretched else model
        batches = training_batches(x, y, settings["batch_size"], stretched=stretched)
        if stretched and int(model.optimizer.iterations) == 0:
            model.optimizer.learning_rate = STRETCH_RATE * settings["learning_rate"]
        tracked = self.callbacks("loss" if validation is None else "val_loss")
        extra = [
            progress_callback(keras, settings["epochs"], batches),
            pause_callback(keras, self.pause),
        ]
        if self.resume is not None:
            extra.insert(0, checkpoint_callback(keras, model, self.resume, tracked, state))
        with restored_on_error(model):
            self.history = network.fit(
                batch_dataset(keras, batches),
                validation_data=validation
                and batch_dataset(keras, validation_batches(*validation, stretched=stretched)),
                epochs=settings["epochs"],
                initial_epoch=first,
                shuffle=False,
                callbacks=[seeding_callback(keras, batches, settings["seed"]), *tracked, *extra],
                verbose=0,
            )
        if self.resume is not None:
            self.history.history = self.resume.losses
        return self.history

    def callbacks(self, monitor: str) -> list[keras.callbacks.Callback]:
        """Build the callbacks that stop early, lower the learning rate and save the best model.

        Args:
            monitor: the monitored loss.
        """
        keras = _keras()
        callbacks = keras.callbacks
        return [
            callbacks.EarlyStopping(
                monitor=monitor, patience=10, restore_best_weights=True, verbose=1
            ),
            callbacks.ReduceLROnPlateau(
                monitor=monitor, factor=0.5, patience=5, min_lr=1e-7, verbose=1
            ),
            best_model_callback(keras, self.model, self.checkpoint_path, monitor),
        ]

    def predict(self, X: ArrayLike | Windows) -> NDArray[np.float32]:
        """Return the network's raw output, ``(n_samples, 1)``.

        Args:
            X: sequences, ``(n_samples, timesteps, features)``.

        Raises:
            ValueError: there is no model, windows of another shape than the model's, or values
                that are not finite numbers.
        """
        model = self._require_model()
        return self._run_network(model, check_sequences("X", X, self._window_shape()))

    def _require_model(self) -> keras.Model:
        if self.model is None:
            msg = "the model is not trained: call train() or load_model() first"
            raise ValueError(msg)
        return self.model

    def _run_network(self, model: keras.Model, x: NDArray[Any] | Windows) -> NDArray[np.float32]:
        """Return the output for windows that have been checked."""
        if not len(x):
            return np.empty((0, 1), dtype=np.float32)
        keras = _keras()
        with restored_on_error(model):
            output = model.predict(
                batch_dataset(keras, Batches(x, None, PREDICT_BATCH_SIZE)),
                callbacks=[pause_callback(keras, self.pause)],
                verbose=0,
            )
        return np.asarray(output, dtype=np.float32)

    def _window_shape(self) -> Shape | None:
        """``(timesteps, features)`` of the model's windows; None if it has none."""
        shape = getattr(self.model, "input_shape", None)
        return tuple(shape[1:]) if isinstance(shape, tuple) else None

    def evaluate(self, X_test: ArrayLike | Windows, y_test: ArrayLike) -> dict[str, float]:
        """Compute and print errors on test data in scaled units, with the last-value forecast's.

        Args:
            X_test: sequences, ``(n_samples, timesteps, features)``.
            y_test: true targets, ``(n_samples,)``.

        Returns:
            `mse`, `mae`, `rmse`, and `direction_accuracy`: share of consecutive differences of
            forecast and target with the same sign (0 … 1, NaN for one sample).

        Raises:
            ValueError: there is no model, shapes that do not fit together, or values that are
                not finite numbers.
        """
        model = self._require_model()
        x, y = check_samples("test", X_test, y_test, self._window_shape())
        metrics = scaled_metrics(self._run_network(model, x)[:, 0], y)
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
            print_last_value(np.zeros(len(y)), y, metrics["mae"])
        elif "close" in names and x.shape[2] == len(names):
            batches, column = Batches(x, None, PREDICT_BATCH_SIZE), names.index("close")
            last = [batches[index][0][:, -1, column] for index in range(len(batches))]
            print_last_value(np.concatenate(last), y, metrics["mae"])
        return metrics

    def plot_training_history(self, save_path: str | Path = "models/training_history.png") -> None:
        """Save loss and MAE by epoch as a two-panel figure; without a history, do nothing."""
        if self.history is None:
            return
        from model.training.history_plot import plot_history

        plot_history(self.history.history, Path(save_path))
        print(f"Training history plot saved to {save_path}")

    def save_model(self, filepath: str | Path = "models/lstm_model.keras") -> None:
        """Save architecture, weights and optimizer state; `load_model` accepts only `.keras`.

        Raises:
            ValueError: there is no model.
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
            ValueError: it is corrupt, of an incompatible Keras version, not `.keras`, or names
                other classes than plain layers.
        """
        path = Path(filepath)
        check_keras_file(path)
        keras = _keras()
        try:
            # safe_mode has been bypassed before: the check above is what refuses code in the file,
            # and bundles are verified by hash earlier.
            self.model = keras.saving.load_model(path, safe_mode=True)
        except (TypeError, ValueError, KeyError, OSError) as error:
            msg = f"{path} cannot be loaded by Keras {keras.__version__}: {error}"
            raise ValueError(msg) from error

    def lstm_weights(self) -> LstmWeights:
        """Return the weights as plain arrays, for export.

        Raises:
            ValueError: there is no model, or it is not LSTM layers followed by Dense(1).
        """
        if self.model is None:
            msg = "there is no model to export: call train() or load_model() first"
            raise ValueError(msg)
        return network_weights(_keras(), self.model)


def _no_pause() -> None:
    """Default of `LSTMPricePredictor.pause`."""


def _resumed_text(epoch: int) -> str:
    return f" going on after epoch {epoch}" if epoch else ""


def _keras() -> ModuleType:
    # Before the first import: otherwise TensorFlow writes many start-up messages to stderr.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # JAX if it is installed: on a CPU it trains in less than half the time.
    if find_spec("jax") is not None:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        # Otherwise it logs every kind of accelerator that it did not find.
        logging.getLogger("jax").setLevel(logging.WARNING)
    return importlib.import_module("keras")


def _seed(keras: ModuleType, seed: int | None) -> None:
    if seed is not None:
        keras.utils.set_random_seed(seed)


if __name__ == "__main__":
    # model.train_lstm imports this module; importing it here would be a cycle.
    runpy.run_module("model.train_lstm", run_name="__main__", alter_sys=True)
