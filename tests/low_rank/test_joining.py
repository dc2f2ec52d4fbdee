"""Rows and columns of a factorized layer are fused, its slots too."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.low_rank.fusion import Fusion
from keras_redundancy.low_rank.joining import join_slots
from tests import models
from tests.low_rank_models import compiled, data, joined, mlp, tied


def test_joining_keeps_the_function_and_the_next_gradients():
    """What the slots become is what training the joined kernel gives."""
    keras.utils.set_random_seed(1)
    model = compiled(kr.factorize(mlp()), keras.optimizers.SGD(0.1, 0.9))
    layer = model.get_layer("two")
    tied(layer, "unit", [(2, 0, -1.5)])
    x, y = data(64)

    def gradient():
        kernel = models.numpy(layer.kernel)
        labels = ops.one_hot(y, 3)

        def loss(value):
            outputs, _ = model.stateless_call(
                [
                    value if v is layer.kernel else ops.convert_to_tensor(v)
                    for v in model.trainable_variables
                ],
                [
                    ops.convert_to_tensor(v)
                    for v in model.non_trainable_variables
                ],
                x,
            )
            return ops.sum(labels * ops.log_softmax(outputs))

        return models.gradient(loss, kernel)

    before, outputs = gradient(), model.predict(x, verbose=0)
    fusion = layer.fuse("unit", kept=0, gone=2)
    np.testing.assert_allclose(
        gradient(), joined(fusion, before, 1), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(model.predict(x, verbose=0), outputs, atol=1e-5)


OPTIMIZERS = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {},
    "Adadelta": {},
    "Adam": {"amsgrad": True, "use_ema": True},
    "AdamW": {},
    "Adamax": {},
    "Nadam": {},
    "Ftrl": {},
    "Lion": {},
    "Lamb": {},
    "Adafactor": {},
    "Muon": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_are_joined_and_training_goes_on(name):
    optimizer = getattr(keras.optimizers, name)(0.001, **OPTIMIZERS[name])
    options = {"jit_compile": False, "run_eagerly": models.EAGERLY}
    model = compiled(kr.factorize(mlp()), optimizer, **options)
    layer = model.get_layer("two")
    tied(layer, "unit", [(2, 0, -1.5)])
    x, y = data(64)
    model.fit(x, y, epochs=1, verbose=0)
    before = {
        id(slot): (models.numpy(slot), kind)
        for slot, kind in _keras.slots(optimizer, layer.kernel)
    }
    fusion = Fusion(0, 2, -1.5)
    join_slots(optimizer, layer.kernel, [("unit", fusion)])
    found = _keras.slots(optimizer, layer.kernel)
    assert len(found) == len(before) > 0
    gone, kept = fusion.shares
    for slot, kind in found:
        old, _ = before[id(slot)]
        new = models.numpy(slot)
        if old.shape != (12, 12):
            np.testing.assert_array_equal(new, 0)
            continue
        expected = {
            "linear": kept * old[:, 0] + gone * old[:, 2],
            "weights": kept * old[:, 0] + gone * old[:, 2],
            "square": kept**2 * old[:, 0] + gone**2 * old[:, 2],
            "size": np.hypot(kept * old[:, 0], gone * old[:, 2]),
        }[kind]
        np.testing.assert_allclose(new[:, 0], expected, rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(new[:, 3], old[:, 3])
        assert kind in ("linear", "weights") or (new >= 0).all()
    layer.fuse("unit", 0, 2)
    model.fit(x, y, epochs=2, verbose=0)
    assert all(np.isfinite(models.numpy(v)).all() for v in model.variables)


CONSTRAINTS = {
    "unit norm": lambda: keras.constraints.UnitNorm(axis=0),
    "max norm": lambda: keras.constraints.MaxNorm(1.0, axis=0),
    "whole": lambda: kr.FrobeniusNorm(2.0),
}


@pytest.mark.parametrize("side", ["unit", "input"])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_do_not_scale_what_was_fused(name, side):
    constraint = CONSTRAINTS[name]()
    layer = kr.FactorizedDense(8, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((6,)), layer])
    kernel = np.random.default_rng(0).normal(size=(6, 8))
    if side == "unit":
        kernel[:, 1] = 2 * kernel[:, 0]
    else:
        kernel[1] = 2 * kernel[0]
    layer.kernel.assign(constraint(ops.convert_to_tensor(kernel, "float32")))
    x = np.random.default_rng(1).normal(size=(16, 6))
    before = model.predict(x, verbose=0)
    assert layer.fuse_parallel(to_square=False)
    for _ in range(2):
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, before, rtol=1e-4, atol=1e-5)
        held = constraint(layer.kernel.value)  # As after a step.
        layer.kernel.assign(held)
