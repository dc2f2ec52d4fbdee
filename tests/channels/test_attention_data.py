"""What the output projection of attention reads, as data shows it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy._keras import attention_projections, mask_of, with_mask
from keras_redundancy.channels.rules.attention import values_of_heads
from tests import models
from tests.channels.test_inner_reads import view_of

SAMPLES, LENGTH, HEADS, SIZE = 150, 5, 4, 3
LAYERS = {
    "heads": lambda: layers.MultiHeadAttention(HEADS, SIZE),
    "gate": lambda: layers.MultiHeadAttention(HEADS, SIZE, use_gate=True),
    "dropout": lambda: layers.MultiHeadAttention(HEADS, SIZE, dropout=0.5),
    "without bias": lambda: layers.MultiHeadAttention(
        HEADS, SIZE, use_bias=False
    ),
    "groups": lambda: layers.GroupQueryAttention(SIZE, 2 * HEADS, HEADS),
}


def network(layer, seed=1):
    inputs = keras.Input((LENGTH, 8))
    x = layers.Dense(12, name="before")(inputs)
    x = layer(x, x)
    outputs = layers.Dense(3, name="behind")(x)
    return models.randomized(keras.Model(inputs, outputs), seed=seed)


def given_to(model, layer, data):
    x = keras.Model(model.input, model.get_layer("before").output)
    return ops.convert_to_tensor(models.outputs(x, data)[0])


def projected(layer, values):
    dense = attention_projections(layer)["output"]
    kernel = models.numpy(dense.kernel)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    bias = 0 if dense.bias is None else models.numpy(dense.bias)
    return models.numpy(values) @ kernel + bias


@pytest.mark.parametrize("name", LAYERS)
def test_the_projection_of_what_it_reads_is_what_comes_out(name):
    layer = LAYERS[name]()
    model = network(layer)
    x = given_to(model, layer, models.random_inputs(model, batch=6))
    found = projected(layer, values_of_heads(layer, (x, x), {}))
    wanted = models.numpy(layer(x, x, training=False))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_masks_are_looked_at_and_left_where_they_are():
    layer = LAYERS["heads"]()
    model = network(layer)
    x = given_to(model, layer, models.random_inputs(model, batch=6))
    mask = ops.convert_to_tensor(np.arange(LENGTH) < np.arange(1, 7)[:, None])
    masked = with_mask(x + 0, mask)
    values = values_of_heads(layer, (masked, masked), {})
    assert mask_of(masked) is not None
    found, wanted = (
        projected(layer, values),
        models.numpy(layer(masked, masked)),
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(wanted - models.numpy(layer(x, x))).max() > 1e-2


@pytest.mark.parametrize("name", LAYERS)
def test_a_view_has_all_numbers_of_each_unit(name):
    layer = LAYERS[name]()
    model = network(layer)
    data = models.random_inputs(model, batch=SAMPLES)
    dense = attention_projections(layer)["output"]
    view = view_of(model, data, dense.kernel)
    heads_each = 2 if name == "groups" else 1
    assert view.positions.shape == (HEADS, heads_each)
    assert view.each == SIZE * heads_each
    x = given_to(model, layer, data)
    values = models.numpy(values_of_heads(layer, (x, x), {}))
    values = values.reshape(-1, values.shape[-1])
    moments = view.moments
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(
        moments.covariance, np.cov(values.T, bias=True), atol=1e-3
    )


# --- what is made of it ------------------------------------------------------


def with_a_needless_head(name):
    """The values of the last unit are mixtures of those of the first one."""
    layer = LAYERS[name]()
    model = network(layer)
    rng = np.random.default_rng(3)
    parts = attention_projections(layer)
    grouped = {"query", "gate"} if name == "groups" else set()
    for part, dense in parts.items():
        if part == "output":
            continue
        mix = rng.normal(size=(SIZE, SIZE)) if part == "value" else None
        count = 2 if part in grouped else 1
        for variable, axis in ((dense.kernel, 1), (dense.bias, 0)):
            if variable is None:
                continue
            value = np.moveaxis(models.numpy(variable).copy(), axis, 0)
            first = value[:count]
            value[-count:] = first if mix is None else first @ mix
            variable.assign(np.moveaxis(value, 0, axis))
    return model, layer


@pytest.mark.parametrize("select", ["greedy", "pivoted"])
@pytest.mark.parametrize("name", ["heads", "dropout", "without bias", "groups"])
def test_a_head_goes_that_others_predict(name, select):
    """By a matrix: no factor predicts its numbers."""
    model, layer = with_a_needless_head(name)
    data = models.random_inputs(model, batch=SAMPLES)
    small = kr.prune(
        model,
        ratio=1 / HEADS,
        layers=layer.name,
        data=data,
        select=select,
        mend=False,
    )
    smaller = small.get_layer(layer.name)
    count = getattr(smaller, "num_heads", None)
    assert (count or smaller.num_key_value_heads) == HEADS - 1
    fresh = models.random_inputs(model, batch=40, seed=7)
    (a,), (b,) = models.outputs(model, fresh), models.outputs(small, fresh)
    np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(a).max())
    merged = kr.prune(model, ratio=1 / HEADS, layers=layer.name)
    (c,) = models.outputs(merged, fresh)
    assert np.abs(a - c).max() > 0.02 * np.abs(a).max()


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_mended_loses_less(name):
    errors = np.zeros(2)
    for seed in range(1, 4):
        model = network(LAYERS[name](), seed)
        data = models.random_inputs(model, batch=SAMPLES)
        fresh = models.random_inputs(model, batch=60, seed=7)
        (wanted,) = models.outputs(model, fresh)
        # Upstream channels go as well: what the heads see is another thing.
        for number, mend in enumerate((True, False)):
            small = kr.prune(model, ratio=0.5, data=data, mend=mend)
            error = np.square(models.outputs(small, fresh)[0] - wanted)
            errors[number] += error.mean()
    assert errors[0] < 0.95 * errors[1]


def test_scores_of_ones_own_see_the_numbers_of_each_head():
    layer = LAYERS["heads"]()
    model = network(layer)
    data = models.random_inputs(model, batch=SAMPLES)
    seen = {}

    def energy(units):
        (reader,) = units.readers
        seen[reader.layer.name] = reader.each, reader.covariance.shape
        strength = np.square(reader.weights).sum(axis=1)
        numbers = np.diag(reader.covariance) * strength
        return numbers.reshape(-1, reader.each).sum(axis=1)

    kr.prune(model, energy, ratio=0.5, layers=layer.name, data=data)
    each, shape = seen[layer.name]
    assert each == SIZE
    assert shape == (HEADS * SIZE, HEADS * SIZE)
