"""The rates of `Dropout` layers, lowered as the layers before them shrink."""

import keras

from keras_redundancy import _keras

# Layers that act on each unit by itself, so that a `Dropout` behind one drops
# units of the layer before it.
BY_UNIT = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.BatchNormalization,
)


class DropoutRates:
    """The rates of `Dropout` layers behind factorized layers.

    Args:
        model: a functional or Sequential model that is built.
        layers: its `Factorized` layers. Their columns in use now, and the
            present rates, are what later ones are compared with.
    """

    def __init__(self, model, layers: list):
        self._start = [
            (dropout, dropout.rate, [(x, x.sizes[1]) for x in before])
            for dropout, before in _dropouts(model, layers)
        ]

    def lower(self) -> bool:
        """Multiply each rate by the share of columns still in use.

        Of a `Dropout` behind several layers, by the largest of their shares. A
        rate that would change by less than a tenth stays.

        Returns:
            Whether a rate has changed.
        """
        changed = False
        for dropout, rate, layers in self._start:
            rate *= max(layer.sizes[1] / count for layer, count in layers)
            if abs(rate - dropout.rate) > 0.1 * dropout.rate:
                dropout.rate = rate
                changed = True
        return changed


def has_dropout(model) -> bool:
    """Whether a model has a `Dropout` layer.

    Raises:
        TypeError: it has one, but no graph that shows what is before it.
    """
    kind = keras.layers.Dropout
    if not any(isinstance(x, kind) for x in _keras.flat_layers(model)):
        return False
    try:
        _keras.graph_of(model)
    except TypeError as error:
        raise TypeError(
            f"{error} Or pass dropout=False to DynamicLowRank, so that the "
            "rates of its Dropout layers stay as they are."
        ) from None
    except ValueError:
        pass  # It is built in the first step, and has a graph then.
    return True


def _dropouts(model, layers):
    """The `Dropout` layers that drop units of some of `layers`.

    Returns:
        [(dropout, [layers whose units it drops]), ...].
    """
    found = {}
    units = {}  # By the key of a tensor, the layers whose units it holds.
    for call in _keras.flat_graph(model, steps=True).calls:
        operation, inner = call.operation, _innermost(call.operation)
        read = [x for key in call.reads for x in units.get(key, ())]
        if isinstance(operation, keras.layers.Dropout):
            _, before = found.setdefault(id(operation), (operation, {}))
            before |= {id(layer): layer for layer in read}
        elif any(layer is inner for layer in layers):
            units |= dict.fromkeys(call.makes, (inner,))
        elif isinstance(operation, BY_UNIT):
            units |= dict.fromkeys(call.makes, tuple(read))
    return [(x, [*before.values()]) for x, before in found.values() if before]


def _innermost(operation):
    """The layer in a wrapper, or in wrappers of it; else the layer itself."""
    while _keras.wraps_one_layer(operation):
        operation = operation.layer
    return operation
