"""Build the Keras callbacks of a training run from a Keras module that is passed in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.training.progress import TrainingProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    import keras
    from numpy.typing import NDArray

    from model.features.sliding_windows import Batches
    from model.training.checkpoint import TrainingCheckpoint, TrainingState
    from model.training.stretches import Stretches


def batch_dataset(library: ModuleType, batches: Batches | Stretches) -> keras.utils.PyDataset:
    """Wrap batches as a Keras dataset."""

    class Dataset(library.utils.PyDataset):  # type: ignore[misc,name-defined]
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> tuple[NDArray[Any], ...]:
            return batches[index]

    return Dataset()


def seeding_callback(
    library: ModuleType, batches: Batches | Stretches, seed: int | None
) -> keras.callbacks.Callback:
    """Seed order and dropout per epoch, so that a killed run continues with the same numbers."""

    def begin(epoch: int, *_: object, **__: object) -> None:
        batches.shuffle(seed, epoch)
        if seed is None:
            return
        for number, layer in enumerate(callback.model.layers):
            generator = getattr(layer, "seed_generator", None)
            if generator is not None:
                drawn = np.random.SeedSequence((seed, number, epoch))
                generator.state.assign(drawn.generate_state(2, np.uint32))

    callback: keras.callbacks.LambdaCallback = library.callbacks.LambdaCallback(
        on_epoch_begin=begin
    )
    return callback


def best_model_callback(
    library: ModuleType, model: keras.Model | None, path: Path, monitor: str
) -> keras.callbacks.Callback:
    """Save ``model`` after each epoch that is the best so far, whichever network is trained."""

    class ModelCheckpoint(library.callbacks.ModelCheckpoint):  # type: ignore[misc,name-defined]
        def set_model(self, trained: keras.Model) -> None:
            super().set_model(model or trained)

    return ModelCheckpoint(str(path), monitor=monitor, save_best_only=True)


def checkpoint_callback(
    library: ModuleType,
    model: keras.Model,
    checkpoint: TrainingCheckpoint,
    tracked: Sequence[keras.callbacks.Callback],
    state: TrainingState | None,
) -> keras.callbacks.Callback:
    """Save the state of ``model`` after each epoch; must follow the tracked callbacks.

    They reset themselves when training begins and are up to date when this one is called.
    """
    return library.callbacks.LambdaCallback(
        on_train_begin=lambda _: checkpoint.track(tracked, state),
        on_epoch_end=lambda epoch, losses: checkpoint.save(epoch + 1, model, losses),
    )


def progress_callback(
    library: ModuleType, epochs: int, batches: Batches | Stretches
) -> keras.callbacks.Callback:
    """Show progress as a bar or as lines."""
    progress = TrainingProgress(epochs, len(batches))
    return library.callbacks.LambdaCallback(
        on_train_begin=lambda *_, **__: progress.start(),
        on_epoch_begin=lambda epoch, *_, **__: progress.epoch_began(epoch),
        on_train_batch_end=lambda batch, *_, **__: progress.batch_ended(batch),
        on_epoch_end=progress.epoch_ended,
        on_train_end=lambda *_, **__: progress.end(),
    )


def pause_callback(library: ModuleType, pause: Callable[[], None]) -> keras.callbacks.Callback:
    """Call ``pause`` after every batch of training, validation and prediction."""
    ends = ("on_train_batch_end", "on_test_batch_end", "on_predict_batch_end")
    return library.callbacks.LambdaCallback(**{end: lambda *_, **__: pause() for end in ends})
