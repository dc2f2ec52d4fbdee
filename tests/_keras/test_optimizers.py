"""What an optimizer keeps for a variable, and variables of new sizes."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_redundancy import _keras
from tests import models


@pytest.mark.parametrize("is_excluded", [False, True])
def test_a_variable_of_another_shape_is_trained_on(is_excluded):
    """Where gradients are 0, only weight decay changes it."""
    layer = layers.Dense(4, use_bias=False)
    # PyTorch's optimizers fail where they exclude all variables.
    model = keras.Sequential([keras.Input((5,)), layers.Dense(5), layer])
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if is_excluded:
        optimizer.exclude_from_weight_decay([layer.kernel])
    model.compile(optimizer, "mse")
    model.fit(np.zeros((8, 5)), np.zeros((8, 4)), verbose=0)
    slots = [slot for slot, _ in _keras.slots(optimizer, layer.kernel)]
    assert len(slots) == 2
    kernel = models.numpy(layer.kernel)[:, :3]
    for variable in (*slots, layer.kernel):
        value = models.numpy(variable)[:, :3]
        _keras.resize(variable, value, optimizer)
    _keras.forget_functions(model)
    model.fit(np.zeros((8, 5)), np.zeros((8, 3)), verbose=0)
    found = models.numpy(layer.kernel)
    assert (found == kernel).all() == is_excluded
    assert np.abs(found).sum() <= np.abs(kernel).sum()
    assert _keras.replicas(model) == 1


def test_gradients_of_a_variable_of_another_shape_do_not_add_up():
    layer = layers.Dense(4, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(0.25), "mse")
    _keras.resize(layer.kernel, np.zeros((1, 1)))
    _keras.forget_functions(model)
    # Each step goes half of the way to 1: the slope is 2 (kernel - 1).
    model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0)
    np.testing.assert_allclose(models.numpy(layer.kernel), [[0.875]])


@pytest.mark.parametrize(
    ("optimizer", "kinds", "counters"),
    [
        (keras.optimizers.SGD(0.1), [], 2),
        (keras.optimizers.SGD(0.1, momentum=0.9), ["linear"], 2),
        (keras.optimizers.Adam(0.1), ["linear", "square"], 2),
        (keras.optimizers.Adamax(0.1), ["linear", "size"], 2),
        (keras.optimizers.Nadam(0.1), ["linear", "square"], 3),
        (
            keras.optimizers.RMSprop(0.1, use_ema=True),
            ["square", "weights"],
            2,
        ),
        (
            keras.optimizers.ScheduleFreeAdamW(0.1),
            ["square", "weights"],
            None,
        ),
        (
            keras.optimizers.LossScaleOptimizer(keras.optimizers.Adagrad(0.1)),
            ["square"],
            None,
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_an_optimizer_keeps(optimizer, kinds, counters):
    variable = keras.Variable(np.ones((3, 2), "float32"))
    other = keras.Variable(np.ones((3, 2), "float32"))
    assert _keras.slots(optimizer, variable) == []
    optimizer.build([other, variable])
    found = _keras.slots(optimizer, variable)
    assert sorted(kind for _, kind in found) == kinds
    assert all(slot.shape == (3, 2) for slot, _ in found)
    of_all = _keras.counters(optimizer)
    assert all(v.shape == () for v in of_all)
    assert len(of_all) + 2 * len(found) == len(optimizer.variables)
    assert counters is None or len(of_all) == counters
    averages = "weights" in kinds
    assert _keras.averages_weights(optimizer) == averages


def test_what_weight_decay_leaves_alone_is_copied():
    variables = [keras.Variable(np.ones(2), name=x) for x in ("a", "b", "c")]
    copies = [keras.Variable(np.ones(2), name=x) for x in ("a", "b", "c")]
    old, new = (keras.optimizers.AdamW(0.1) for _ in range(2))
    old.exclude_from_weight_decay([variables[0]], ["b"])
    _keras.copy_weight_decay(
        old, new, list(zip(variables, copies, strict=True))
    )
    assert [new._use_weight_decay(x) for x in copies] == [False, False, True]
    plain = keras.optimizers.AdamW(0.1)
    _keras.copy_weight_decay(plain, plain, [])
    assert plain._use_weight_decay(copies[0])
