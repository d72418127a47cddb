"""Build the LSTM network and extract its weights, with a Keras module that is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.core.errors import ConfigError
from model.inference.onnx_export import LstmLayer, LstmWeights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    import keras


def build_network(
    library: ModuleType, input_shape: tuple[int | None, int], settings: Mapping[str, Any]
) -> keras.Sequential:
    """Build LSTM and dropout per entry of `lstm_units`, then Dense(1); not compiled.

    Args:
        library: Keras.
        input_shape: ``(timesteps, features)``.
        settings: the `model` section.

    Raises:
        ConfigError: there is no layer.
    """
    units = settings["lstm_units"]
    if not units:
        msg = "model.lstm_units is empty; list the units of at least one layer, e.g. [64, 32]"
        raise ConfigError(msg)
    # Explicit names: Keras numbers layers by how many the process has made before.
    network = library.Sequential([library.Input(shape=input_shape)], name="sequential")
    for position, width in enumerate(units):
        suffix = f"_{position}" if position else ""
        more = position < len(units) - 1
        network.add(library.layers.LSTM(width, return_sequences=more, name=f"lstm{suffix}"))
        network.add(library.layers.Dropout(settings["dropout_rate"], name=f"dropout{suffix}"))
    network.add(library.layers.Dense(1, name="dense"))
    return network


def stretch_network(library: ModuleType, network: keras.Model) -> keras.Model:
    """Build a network with the same layers that also forecasts after every later row; compiled.

    It shares variables, loss and optimizer with ``network``: training one trains the other.

    Args:
        library: Keras.
        network: LSTM and other layers, of which the last LSTM returns its last row; compiled.

    Returns:
        A model of ``(batch, rows, features)`` to ``(batch, rows - lookback + 1, 1)``.
    """
    kinds = library.layers
    lookback, features = network.input_shape[1:]
    rows = output = library.Input(shape=(None, features))
    last = [layer for layer in network.layers if isinstance(layer, kinds.LSTM)][-1]
    for layer in network.layers:
        if layer is last:
            sequences = kinds.LSTM(layer.units, return_sequences=True, name=f"{layer.name}_rows")
            sequences.cell = layer.cell
            output = sequences(output)[:, lookback - 1 :]
        else:
            output = layer(output)
    stretched = library.Model(rows, output)
    # Two models share an optimizer only if it has its variables before.
    network.optimizer.build(network.trainable_variables)
    stretched.compile(optimizer=network.optimizer, loss=network.loss, weighted_metrics=["mae"])
    return stretched


def network_weights(library: ModuleType, network: keras.Model) -> LstmWeights:
    """Extract the weights as plain arrays.

    Raises:
        ValueError: the network is not LSTM layers followed by Dense(1).
    """
    layers = [layer for layer in network.layers if layer.weights]
    if not _is_exportable(library, layers):
        msg = "only plain LSTM layers followed by Dense(1) can be exported"
        raise ValueError(msg)
    *recurrent, dense = layers
    kernel, bias = dense.get_weights()
    return LstmWeights(
        layers=tuple(LstmLayer(*layer.get_weights()) for layer in recurrent),
        dense_kernel=kernel,
        dense_bias=bias,
    )


def _is_exportable(library: ModuleType, layers: Sequence[Any]) -> bool:
    """Whether weighted layers are LSTMs with Keras's default settings and Dense(1) at the end."""
    kinds = library.layers
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
