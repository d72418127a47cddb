"""Train the network over stretches of candles, in JAX, for experiments with many variants.

The output of an LSTM at a candle depends only on the candles up to it, so one pass over a stretch
of 95 candles gives 36 forecasts that have each seen 60 or more. Initial weights, gates and dropout
are those of Keras's LSTM.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

Traced = Any
"""An array of JAX or a tree of them; types are checked where JAX may be missing."""

LABELS: Final = 36
_LOOKBACK: Final = 60
_UNITS: Final = (64, 32)
_BATCH: Final = 32
_STRETCH: Final = _LOOKBACK - 1 + LABELS
_EXACT_BATCH: Final = 1_080
_LOSSES: Final[dict[str, Callable[[Traced], Traced]]] = {
    "mae": abs,
    "mse": lambda e: e * e,
    "huber": lambda e: abs(e) - 0.5 + 0.5 * (1.0 - abs(e)).clip(0.0) ** 2,
}


@dataclass(frozen=True)
class Recipe:
    """How to train: loss by name, dropout, Adam's first rate, epochs, whether Dense starts at 0."""

    loss: str
    dropout: float
    rate: float
    epochs: int
    zero_start: bool


class DenseNetwork:
    """LSTM 64, LSTM 32, Dense 1.

    Args:
        recipe: how to train.
        x: features, ``[symbols, candles, F]``.
        y: targets of the candle after, ``[symbols, candles]``.
        weight: of each loss, ``[symbols, candles]``.
        seed: of weights, dropout and order.
    """

    def __init__(self, recipe: Recipe, x: Floats, y: Floats, weight: Floats, seed: int) -> None:
        self._jax = importlib.import_module("jax")
        self._recipe = recipe
        self._x, self._y, self._weight = (self._jax.numpy.asarray(a) for a in (x, y, weight))
        self._key = self._jax.random.PRNGKey(seed)
        self._order = np.random.default_rng(seed)
        self.weights = self._initial(x.shape[2])
        self._predict = self._jax.jit(self._forecast, static_argnames="labels")

    def fit(self, first: int, end: int, judge: Callable[[], float]) -> None:
        """Train on the rows ``first … end`` and keep the weights of the epoch that judges least.

        Args:
            first: first candle.
            end: candle after the last target.
            judge: validation error with the present weights.
        """
        jax, recipe = self._jax, self._recipe
        starts = np.arange(first, end - _STRETCH - LABELS - 1, LABELS)
        per_epoch = len(starts) * len(self._x) // _BATCH
        step = partial(self._step, steps=per_epoch * recipe.epochs)
        run = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches))
        zeros = jax.tree.map(jax.numpy.zeros_like, self.weights)
        state, best, least = (self.weights, zeros, zeros, 0), self.weights, np.inf
        for _ in range(recipe.epochs):
            shifted = starts + self._order.integers(0, LABELS)
            symbols, rows = (a.ravel() for a in np.meshgrid(range(len(self._x)), shifted))
            order = self._order.permutation(len(rows))[: per_epoch * _BATCH].reshape(-1, _BATCH)
            self._key, key = jax.random.split(self._key)
            state, _ = run(state, (symbols[order], rows[order], jax.random.split(key, per_epoch)))
            self.weights = state[0]
            error = judge()
            if error < least:
                best, least = self.weights, error
        self.weights = best

    def sketch(self, symbol: int, starts: Integers) -> Floats:
        """Forecasts of the stretches' last rows, ``[n * 36]``: quick, contexts of 60 to 95."""
        output = self._predict(self.weights, np.full(len(starts), symbol), starts, labels=LABELS)
        return np.asarray(output).ravel()

    def exact(self, symbol: int, rows: Integers) -> Floats:
        """Forecasts from windows of 60 that end at ``rows``, ``[n]``."""
        padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % _EXACT_BATCH)])
        same = np.full(_EXACT_BATCH, symbol)
        parts = [
            np.asarray(self._predict(self.weights, same, ends - _LOOKBACK + 1, labels=1))[:, 0]
            for ends in padded.reshape(-1, _EXACT_BATCH)
        ]
        return np.concatenate(parts)[: len(rows)]

    def _initial(self, n_features: int) -> Traced:
        jax = self._jax
        glorot, orthogonal = (
            jax.nn.initializers.glorot_uniform(),
            jax.nn.initializers.orthogonal(),
        )
        layers, width = [], n_features
        for units in _UNITS:
            self._key, one, two = jax.random.split(self._key, 3)
            bias = jax.numpy.zeros(4 * units).at[units : 2 * units].set(1.0)
            layers.append(
                (glorot(one, (width, 4 * units)), orthogonal(two, (units, 4 * units)), bias)
            )
            width = units
        self._key, one = jax.random.split(self._key)
        dense = glorot(one, (width, 1)) * (0.0 if self._recipe.zero_start else 1.0)
        return {"lstm": layers, "dense": (dense, jax.numpy.zeros(1))}

    def _windows(self, source: Traced, symbols: Traced, starts: Traced, length: int) -> Traced:
        cut = self._jax.lax.dynamic_slice_in_dim
        return self._jax.vmap(lambda s, t: cut(source[s], t, length))(symbols, starts)

    def _forecast(
        self, weights: Traced, symbols: Traced, starts: Traced, key: Traced = None, labels: int = 1
    ) -> Traced:
        hidden = self._windows(self._x, symbols, starts, _LOOKBACK - 1 + labels).swapaxes(0, 1)
        keys = (None, None) if key is None else self._jax.random.split(key)
        for layer, dropout_key in zip(weights["lstm"], keys, strict=True):
            hidden = self._dropout(self._layer(layer, hidden), dropout_key)
        kernel, bias = weights["dense"]
        return (hidden[-labels:] @ kernel + bias)[..., 0].T

    def _dropout(self, values: Traced, key: Traced) -> Traced:
        keep = 1.0 - self._recipe.dropout
        if key is None or keep == 1.0:
            return values
        return values * self._jax.random.bernoulli(key, keep, values.shape) / keep

    def _layer(self, layer: Traced, x: Traced) -> Traced:
        jax, (kernel, recurrent, bias) = self._jax, layer
        units = recurrent.shape[0]

        def cell(state: Traced, projected: Traced) -> Traced:
            hidden, memory = state
            gates = jax.numpy.split(projected + hidden @ recurrent, 4, axis=-1)
            i, f, o = (jax.nn.sigmoid(gates[k]) for k in (0, 1, 3))
            memory = f * memory + i * jax.numpy.tanh(gates[2])
            hidden = o * jax.numpy.tanh(memory)
            return (hidden, memory), hidden

        start = jax.numpy.zeros((x.shape[1], units))
        return jax.lax.scan(cell, (start, start), x @ kernel + bias, unroll=4)[1]

    def _loss(self, weights: Traced, symbols: Traced, starts: Traced, key: Traced) -> Traced:
        labels = starts + _LOOKBACK - 1
        truth = self._windows(self._y, symbols, labels, LABELS)
        weight = self._windows(self._weight, symbols, labels, LABELS)
        output = self._forecast(weights, symbols, starts, key, LABELS)
        return (weight * _LOSSES[self._recipe.loss](output - truth)).mean()

    def _step(self, state: Traced, batch: Traced, *, steps: int) -> Traced:
        """Adam (Kingma and Ba 2015) with a rate that falls to zero along half a cosine."""
        jax, (weights, first, second, count) = self._jax, state
        loss, gradient = jax.value_and_grad(self._loss)(weights, *batch)
        rate = self._recipe.rate * 0.5 * (1.0 + jax.numpy.cos(jax.numpy.pi * count / steps))
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)

        def moved(w: Traced, m: Traced, v: Traced) -> Traced:
            return w - rate * (m / (1 - 0.9**count)) / ((v / (1 - 0.999**count)) ** 0.5 + 1e-7)

        return (jax.tree.map(moved, weights, first, second), first, second, count), loss
