"""Operations have the classes and attributes that the rules read."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_redundancy import _keras

OPERATIONS = {
    "numpy": {
        "Absolute": lambda x: abs(x),
        "Add": lambda x: x + x,
        "Amax": lambda x: ops.amax(x, 1),
        "Clip": (lambda x: ops.clip(x, 0, 1), {"x_min": 0, "x_max": 1}),
        "Concatenate": (lambda x: ops.concatenate([x, x], 1), {"axis": 1}),
        "Divide": lambda x: ops.divide(x, x),
        "Einsum": (
            lambda x: ops.einsum("abc,abc->ab", x, x),
            {"subscripts": "abc,abc->ab"},
        ),
        "ExpandDims": (lambda x: ops.expand_dims(x, -1), {"axis": -1}),
        "Flip": (lambda x: ops.flip(x, 1), {"axis": 1}),
        "GetItem": lambda x: x[:, :2],
        "Greater": lambda x: x > 0,
        "Less": lambda x: x < 0,
        "Matmul": lambda x: x @ ops.swapaxes(x, 1, 2),
        "Max": (
            lambda x: ops.max(x, 1, keepdims=True),
            {"axis": [1], "keepdims": True, "initial": None},
        ),
        "Maximum": lambda x: ops.maximum(x, x),
        "Mean": (lambda x: ops.mean(x, 1), {"axis": [1], "keepdims": False}),
        "Minimum": lambda x: ops.minimum(x, x),
        "Moveaxis": (
            lambda x: ops.moveaxis(x, 1, 2),
            {"source": [1], "destination": [2]},
        ),
        "Multiply": lambda x: 2 * x,
        "Negative": lambda x: -x,
        "Pad": (
            lambda x: ops.pad(x, ((0, 0), (1, 0), (2, 3))),
            {"pad_width": ((0, 0), (1, 0), (2, 3)), "mode": "constant"},
        ),
        "Power": lambda x: x**2,
        "Repeat": (
            lambda x: ops.repeat(x, 2, axis=1),
            {"repeats": 2, "axis": 1},
        ),
        "Reshape": (
            lambda x: ops.reshape(x, (-1, 20)),
            {"newshape": (-1, 20)},
        ),
        "Roll": (lambda x: ops.roll(x, 2, axis=1), {"shift": 2, "axis": 1}),
        "Split": (
            lambda x: ops.split(x, [1], axis=1)[0],
            {"indices_or_sections": (1,), "axis": 1},
        ),
        "Squeeze": (lambda x: ops.squeeze(x[:, :1], 1), {"axis": 1}),
        "Stack": (lambda x: ops.stack([x, x], 1), {"axis": 1}),
        "Subtract": lambda x: x - x,
        "Sum": (lambda x: ops.sum(x, 1), {"axis": [1], "keepdims": False}),
        "Swapaxes": (
            lambda x: ops.swapaxes(x, 1, 2),
            {"axis1": 1, "axis2": 2},
        ),
        "Take": (lambda x: ops.take(x, [0, 2], axis=1), {"axis": 1}),
        "Tanh": lambda x: ops.tanh(x),
        "Tile": (lambda x: ops.tile(x, 2), {"repeats": 2}),
        "Transpose": (
            lambda x: ops.transpose(x, (0, 2, 1)),
            {"axes": (0, 2, 1)},
        ),
        "TrueDivide": lambda x: x / 2,
        "Where": lambda x: ops.where(x, x, x),
    },
    "core": {
        "Cast": (lambda x: ops.cast(x, "int32"), {"dtype": "int32"}),
        "StopGradient": lambda x: ops.stop_gradient(x),
        "Unstack": (lambda x: ops.unstack(x, axis=1)[0], {"axis": 1}),
    },
    "math": {
        "Logsumexp": (lambda x: ops.logsumexp(x, 1), {"axis": 1}),
        "Rsqrt": lambda x: ops.rsqrt(x),
    },
    "nn": {
        "Gelu": lambda x: ops.gelu(x),
        "Glu": (lambda x: ops.glu(x, axis=1), {"axis": 1}),
        "LeakyRelu": lambda x: ops.leaky_relu(x),
        "Relu": lambda x: ops.relu(x),
        "Sigmoid": lambda x: ops.sigmoid(x),
        "Softmax": (lambda x: ops.softmax(x, 1), {"axis": 1}),
    },
    "image": {
        "Resize": (
            lambda x: ops.image.resize(x[..., None], (2, 2)),
            {"size": (2, 2), "fill_value": 0.0, "data_format": "channels_last"},
        ),
    },
}


@pytest.mark.parametrize(
    ("module", "kind"),
    [(module, kind) for module in OPERATIONS for kind in OPERATIONS[module]],
)
def test_operations_have_the_classes_and_attributes_that_rules_read(
    module, kind
):
    case = OPERATIONS[module][kind]
    make, attributes = case if isinstance(case, tuple) else (case, {})
    operation = _keras.origin(make(keras.Input((4, 5))))
    classes = getattr(_keras, f"{module}_operations")
    assert type(operation) is getattr(classes, kind)
    found = {name: getattr(operation, name) for name in attributes}
    assert found == attributes


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda x: ops.reshape(x, (-1, 20)), ("newshape", 1)),
        (lambda x: ops.split(x, 2, axis=1)[0], ("indices_or_sections",)),
        (lambda x: ops.roll(x, 2, axis=1), ("shift",)),
        (lambda x: ops.pad(x, ((0, 0), (1, 0), (2, 3))), ("pad_width", 2)),
        (lambda x: ops.broadcast_to(x, (1, 4, 5)), ("shape", 2)),
    ],
)
def test_operations_are_made_anew_from_their_configs(make, path):
    operation = _keras.origin(make(keras.Input((4, 5), batch_size=1)))
    assert _keras.has_config(operation)
    config = operation.get_config()
    assert type(operation).from_config(config).get_config() == config
    for key in path:
        config = config[key]


def test_operations_given_what_cannot_be_saved_have_no_config():
    x = keras.Input((4, 5))
    operation = _keras.origin(ops.reshape(x, (-1, np.int64(20))))
    assert not _keras.has_config(operation)
    assert _keras.has_config(layers.Reshape((np.int64(20),)))
