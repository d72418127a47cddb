"""Build the Keras callbacks of a training run from a Keras module that is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model.training.progress import TrainingProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    import keras
    from numpy.typing import NDArray

    from model.features.sliding_windows import Batches
    from model.training.checkpoint import Standing, TrainingCheckpoint


def dataset(library: ModuleType, batches: Batches) -> keras.utils.PyDataset:
    """Batches in the form that Keras asks for."""

    class Dataset(library.utils.PyDataset):  # type: ignore[misc,name-defined]
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> tuple[NDArray[Any], ...]:
            return batches[index]

    return Dataset()


def drawing(library: ModuleType, batches: Batches, seed: int | None) -> keras.callbacks.Callback:
    """Chance, drawn for each epoch alone: a training that was cut goes on as if it had not been."""

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


def resuming(
    library: ModuleType,
    resume: TrainingCheckpoint,
    watching: Sequence[keras.callbacks.Callback],
    standing: Standing | None,
) -> keras.callbacks.Callback:
    """Behind those it watches: they forget all when training begins, and are up to date by then."""
    callback: keras.callbacks.LambdaCallback = library.callbacks.LambdaCallback(
        on_train_begin=lambda _: resume.watch(watching, standing),
        on_epoch_end=lambda epoch, losses: resume.save(epoch + 1, callback.model, losses),
    )
    return callback


def showing(library: ModuleType, epochs: int, batches: Batches) -> keras.callbacks.Callback:
    """A bar or lines about how far training is."""
    progress = TrainingProgress(epochs, len(batches))
    return library.callbacks.LambdaCallback(
        on_train_begin=lambda *_, **__: progress.start(),
        on_epoch_begin=lambda epoch, *_, **__: progress.epoch_began(epoch),
        on_train_batch_end=lambda batch, *_, **__: progress.batch_ended(batch),
        on_epoch_end=progress.epoch_ended,
        on_train_end=lambda *_, **__: progress.end(),
    )


def pausing(library: ModuleType, pause: Callable[[], None]) -> keras.callbacks.Callback:
    """Calls ``pause`` after every batch, whatever it is for."""
    ends = ("on_train_batch_end", "on_test_batch_end", "on_predict_batch_end")
    return library.callbacks.LambdaCallback(**{end: lambda *_, **__: pause() for end in ends})
