"""A walk through both graphs: shared layers, memory, what is mended."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.mend import reconstruct
from keras_redundancy.mend.calls import most_bytes, paired_calls, steps_of
from keras_redundancy.mend.frontier import Frontier
from tests import models


def error(model, small, data):
    (a,), (b,) = models.outputs(model, data), models.outputs(small, data)
    return np.square(a - b).mean() / a.var()


def fresh(model, batch=300):
    return models.random_inputs(model, seed=1, batch=batch)


def without_a_round(model, **options):
    return kr.prune(model, **options, rounds=0)


# --- shared layers ----------------------------------------------------------


def siamese(nested):
    """Two inputs go through the same layers, one scaled and shifted."""
    parts = [
        layers.Dense(16, activation="relu", name="first"),
        layers.Dense(12, activation="relu", name="second"),
    ]
    if nested:
        parts = [keras.Sequential([keras.Input((10,)), *parts])]
    inputs = [keras.Input((10,)) for _ in range(2)]
    ends = []
    for x in (inputs[0], layers.Rescaling(2.0, 0.5)(inputs[1])):
        for part in parts:
            x = part(x)
        ends.append(x)
    x = layers.Dense(4)(layers.Concatenate()(ends))
    return models.randomized(keras.Model(inputs, x))


def steps_by_name(model, names):
    calls = paired_calls(model, model, [None] * len(model.inputs))
    shared = {id(call.layer) for call in calls if call.layer.name in names}
    steps = steps_of(calls, len(model.inputs), shared)
    return {
        step.calls[0].layer.name: (len(step.calls), step.is_whole)
        for step in steps
    }


@pytest.mark.parametrize("nested", [False, True])
def test_a_shared_layer_is_fitted_to_all_its_calls(nested, monkeypatch):
    model = siamese(nested)
    steps = steps_by_name(model, ("first", "second"))
    assert steps["first"] == steps["second"] == (2, True)
    data, fitted = models.random_inputs(model, batch=600), {}
    fit_to = reconstruct.reconstruct

    def noted(fit, pieces, samples, room, counting):
        fitted[fit.layer.name] = sum(size for _, size, *_ in pieces) / samples
        fit_to(fit, pieces, samples, room, counting)

    monkeypatch.setattr(reconstruct, "reconstruct", noted)
    options = {"ratio": 0.4, "data": data}
    small, once = kr.prune(model, **options), without_a_round(model, **options)
    assert list(fitted.values()) == [2, 2, 1]
    new_data = fresh(model)
    assert error(model, small, new_data) < error(model, once, new_data)


def test_a_layer_that_reads_what_it_made_stays_as_it_is():
    inputs = x = keras.Input((10,))
    again = layers.Dense(10, activation="tanh", name="again")
    x = again(layers.Dense(10, name="first")(again(x)))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    steps = steps_by_name(model, ("again", "first"))
    assert steps["again"] == (1, False)
    assert steps["first"] == (1, True)


# --- kernels that no convolution of one group has ---------------------------


KINDS = {
    "separable": lambda: layers.SeparableConv2D(8, 3, activation="relu"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "grouped": lambda: layers.Conv2D(8, 3, groups=2),
    "transposed": lambda: layers.Conv2DTranspose(8, 3, 2, "same"),
    "einsum": lambda: layers.EinsumDense(
        "abcd,de->abce", (8, 8, 7), bias_axes="e"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_of_all_kinds_are_fitted(kind):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    layer = KINDS[kind]()
    model = models.randomized(keras.Model(inputs, layer(x)))
    data = models.random_inputs(model, batch=200)
    plan = kr.plan(model, ratio=0.4, data=data, layers="conv2d.*")
    small = plan.apply()
    mended = small.layers[-1]
    alone = keras.Model(small.inputs, small.layers[-2].output)
    before = error(model, small, data)
    # No change of its own kernel brings it nearer.
    kernel = getattr(mended, "pointwise_kernel", None)
    kernel = mended.kernel if kernel is None else kernel
    best = models.numpy(kernel)
    rng = np.random.default_rng(0)
    for _ in range(3):
        kernel.assign(best + 0.02 * best.std() * rng.normal(size=best.shape))
        assert error(model, small, data) > before
    assert alone.count_params() < model.count_params()


# --- memory -----------------------------------------------------------------


def images_model():
    inputs = x = keras.Input((16, 16, 3))
    for _ in range(3):
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    return models.randomized(keras.Model(inputs, layers.Flatten()(x)))


def test_bytes_of_the_widest_place():
    model = images_model()
    calls = paired_calls(model, model, [(16, 16, 3)])
    # Of both models one tensor of 8 channels; batch by batch one goes for
    # the other.
    assert most_bytes(steps_of(calls, 1, set()), [3072]) == 2 * 4 * 16 * 16 * 8


def test_memory_bounds_the_samples(capsys):
    model = images_model()
    data = models.random_inputs(model, batch=90)
    plan = kr.plan(model, ratio=0.4, data=data)
    plan.apply(verbose=True)
    assert (plan.repair.used, plan.repair.given) == (90, 90)
    assert "samples" not in capsys.readouterr().out
    plan = kr.plan(model, ratio=0.4, data=data, mend=kr.Mend(memory=10**6))
    small = plan.apply(verbose=True)
    assert 20 < plan.repair.used < 65
    assert f"{plan.repair.used} of 90 samples" in capsys.readouterr().out
    assert f"{plan.repair.used} of 90 samples" in str(plan)
    once = without_a_round(model, ratio=0.4, data=data)
    new_data = fresh(model, batch=40)
    assert error(model, small, new_data) < error(model, once, new_data)


@pytest.mark.parametrize("batch", [100, 400])
def test_tensors_and_rows_stay_within_memory(batch, monkeypatch):
    model, memory, held = images_model(), 10**6, []
    data = models.random_inputs(model, batch=batch)
    plan = kr.plan(model, ratio=0.4, data=data, mend=kr.Mend(memory=memory))
    fit_to, rows_of = reconstruct.reconstruct, reconstruct._rows
    advance = Frontier.advance

    def advanced(frontier, *args):
        advance(frontier, *args)
        held.append(frontier.held)

    def noted(fit, pieces, samples, room, counting):
        numbers = []

        def counted(*args):
            numbers.append(0)
            for rows in rows_of(*args):
                for x in (rows.read, rows.wanted):
                    numbers[-1] += int(np.prod(x.shape))
                yield rows

        monkeypatch.setattr(reconstruct, "_rows", counted)
        fit_to(fit, pieces, samples, room, counting)
        held.append(memory - room + reconstruct.BYTES * max(numbers))

    monkeypatch.setattr(Frontier, "advance", advanced)
    monkeypatch.setattr(reconstruct, "reconstruct", noted)
    plan.apply()
    assert memory / 2 < max(held) <= memory


def test_too_little_memory_for_one_sample():
    model = images_model()
    data = models.random_inputs(model, batch=10)
    plan = kr.plan(model, ratio=0.4, data=data)
    plan.repair.memory = 10_000
    with pytest.raises(ValueError, match="less than one sample") as caught:
        plan.apply()
    needed = int(
        str(caught.value).split("takes ")[1].split()[0].replace(",", "")
    )
    plan.repair.memory = needed
    plan.apply()
    assert plan.repair.used == 1


def test_a_batch_of_fixed_size_is_taken_whole():
    inputs = keras.Input(batch_shape=(4, 6, 3))
    x = layers.LSTM(8, stateful=True, return_sequences=True)(inputs)
    x = layers.Dense(8, activation="relu")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    data = np.random.default_rng(0).normal(size=(40, 6, 3)).astype("float32")
    plan = kr.plan(model, ratio=0.4, data=data, batch_size=4)
    plan.repair.memory = 16_000
    plan.apply()
    assert plan.repair.used in range(4, 40, 4)
    plan.repair.memory = 100
    with pytest.raises(ValueError, match="batch of 4 samples"):
        plan.apply()


def test_an_interrupted_walk_changes_nothing(monkeypatch):
    model = images_model()
    data = models.random_inputs(model, batch=20)
    plan = kr.plan(model, ratio=0.4, data=data)
    before = [models.numpy(v) for v in model.variables]

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, "reconstruct", interrupt)
        with pytest.raises(KeyboardInterrupt):
            plan.apply()
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, models.numpy(variable))
    once, again = plan.apply(), plan.apply()
    models.assert_same_function(once, again, tolerance=0)
