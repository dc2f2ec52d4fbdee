"""Recurrent kernels that are fitted to the gates of the original layer."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.mend import recurrent
from keras_redundancy.mend.recurrent import (
    Direction,
    RecurrentFit,
    fit_recurrent,
    recurrent_fits,
)
from tests import models

SAMPLES, STEPS, CHANNELS, UNITS = 60, 7, 3, 4
KINDS = {
    "LSTM": (layers.LSTM, {}),
    "GRU": (layers.GRU, {}),
    "GRU without reset_after": (layers.GRU, {"reset_after": False}),
    "SimpleRNN": (layers.SimpleRNN, {}),
    "without bias": (layers.LSTM, {"use_bias": False}),
    "GRU without bias": (layers.GRU, {"use_bias": False}),
    "backwards": (layers.GRU, {"go_backwards": True}),
}


def inputs_for(batch=SAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, STEPS, CHANNELS)).astype("float32")


def built(make, seed=0):
    layer = make()
    layer.build((None, STEPS, CHANNELS))
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(0.5 * rng.normal(size=variable.shape))
    return layer


def disturbed(layer, make, size=0.1):
    """A layer with weights that are not quite those of another one."""
    copy = built(make)
    rng = np.random.default_rng(1)
    for new, old in zip(copy.weights, layer.weights, strict=True):
        noise = size * rng.normal(size=old.shape)
        new.assign(models.numpy(old) + noise)
    return copy


def pieces_of(x, sizes=(32, 28), **given):
    """What `fit_recurrent` takes, in batches."""
    found, first = [], 0
    for size in sizes:
        part = keras.ops.convert_to_tensor(x[first : first + size])
        own = {
            name: keras.tree.map_structure(
                lambda y, rows=slice(first, first + size): y[rows], value
            )
            for name, value in given.items()
        }
        call = (part,), own
        found.append((first, size, call, call))
        first += size
    return found


def outputs(layer, x, **given):
    return models.numpy(layer(x, **given))


def distance(a, b):
    return float(np.square(a - b).mean() / np.square(a).mean())


def fit_whole(old, new, pieces, room=10**6):
    units = np.arange(old.cell.units)
    fit = RecurrentFit(old, (Direction(old, new, units),))
    with _keras.without_gradients():
        fit_recurrent(fit, new, pieces, SAMPLES, room)


# --- layers whose weights were disturbed become what they were ---------------


@pytest.mark.parametrize("name", KINDS)
def test_the_weights_are_found_again(name):
    kind, options = KINDS[name]

    def make():
        return kind(UNITS, return_sequences=True, **options)

    old = built(make)
    new = disturbed(old, make)
    fresh = inputs_for(seed=3)
    before = distance(outputs(old, fresh), outputs(new, fresh))
    fit_whole(old, new, pieces_of(inputs_for()))
    after = distance(outputs(old, fresh), outputs(new, fresh))
    assert before > 1e-3
    assert after < 1e-4 * before


def test_a_layer_around_a_cell():
    def make():
        return layers.RNN(layers.LSTMCell(UNITS))

    old = built(make)
    new = disturbed(old, make)
    fit_whole(old, new, pieces_of(inputs_for()))
    fresh = inputs_for(seed=3)
    assert distance(outputs(old, fresh), outputs(new, fresh)) < 1e-6


def test_masked_steps_are_left_out():
    """What is read there is as large as to spoil a fit."""

    def make():
        return layers.GRU(UNITS, return_sequences=True)

    old = built(make)
    new = disturbed(old, make)
    x = inputs_for()
    mask = np.random.default_rng(5).random((SAMPLES, STEPS)) < 0.7
    mask[:, 0] = True
    x[~mask] *= 1e4
    fit_whole(old, new, pieces_of(x, mask=mask))
    fresh = inputs_for(seed=3)
    assert distance(outputs(old, fresh), outputs(new, fresh)) < 1e-6


def test_initial_states():
    def make():
        return layers.LSTM(UNITS, return_sequences=True)

    old = built(make)
    new = disturbed(old, make)
    rng = np.random.default_rng(2)
    states = [
        rng.normal(size=(SAMPLES, UNITS)).astype("float32") for _ in range(2)
    ]
    fit_whole(old, new, pieces_of(inputs_for(), initial_state=states))
    fresh = inputs_for(seed=3)
    found = [
        outputs(layer, fresh, initial_state=states) for layer in (old, new)
    ]
    assert distance(*found) < 1e-6


def test_steps_stay_within_memory(monkeypatch):
    def make():
        return layers.SimpleRNN(UNITS, return_sequences=True)

    old, taken = built(make), []

    def noted(rows, *args):
        taken.append(sum(len(part.is_held_out) for part in rows))
        return least_squares(rows, *args)

    least_squares = recurrent.least_squares
    monkeypatch.setattr(recurrent, "least_squares", noted)
    each = recurrent.BYTES * (CHANNELS + UNITS + UNITS)
    for steps in (STEPS, 2, 0.5):  # of each sample there is room for
        room = int(each * SAMPLES * steps)
        fit_whole(old, disturbed(old, make), pieces_of(inputs_for()), room)
        assert taken.pop() == SAMPLES * max(steps, 1)


def test_a_fit_that_is_worse_over_time_is_not_kept(monkeypatch):
    def make():
        return layers.LSTM(UNITS)

    old = built(make)
    new = disturbed(old, make, size=0.01)
    before = [models.numpy(v).copy() for v in new.weights]

    def useless(rows, starts, *others):
        yield 0 * starts[0], np.full(starts.shape[2], 3.0)

    monkeypatch.setattr(recurrent, "least_squares", useless)
    fit_whole(old, new, pieces_of(inputs_for()))
    for value, variable in zip(before, new.weights, strict=True):
        np.testing.assert_array_equal(value, models.numpy(variable))


# --- in a model --------------------------------------------------------------


def network(layer, width=8):
    inputs = keras.Input((STEPS, CHANNELS))
    x = layers.Dense(width, activation="relu")(inputs)
    x = layer(x)
    if len(x.shape) == 3:
        x = layers.LSTM(8)(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    return models.randomized(model)


IN_MODELS = {
    "GRU": lambda: layers.GRU(12),
    "two LSTMs": lambda: layers.LSTM(12, return_sequences=True),
    "Bidirectional": lambda: layers.Bidirectional(
        layers.GRU(8, reset_after=False)
    ),
}


def error(model, small, x):
    (a,), (b,) = models.outputs(model, x), models.outputs(small, x)
    return np.square(a - b).mean() / a.var()


@pytest.mark.parametrize("name", IN_MODELS)
def test_less_is_lost_on_fresh_samples(name, monkeypatch):
    model = network(IN_MODELS[name]())
    data, fresh = inputs_for(200), inputs_for(200, seed=9)
    options = {"select": "l1", "absorb": "drop", "ratio": 0.4, "data": data}
    fitted = error(model, kr.prune(model, **options), fresh)
    monkeypatch.setattr(recurrent, "FITS", 0)
    without = error(model, kr.prune(model, **options), fresh)
    assert fitted < 0.95 * without


def test_what_is_fitted():
    """Layers with cells that are known, and no weights that are shared."""
    inputs = keras.Input((STEPS, CHANNELS))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(inputs)
    x = layers.RNN(layers.SimpleRNNCell(4), return_sequences=True)(x)
    cells = [layers.LSTMCell(4), layers.LSTMCell(4)]
    x = layers.RNN(cells, return_sequences=True)(x)
    x = layers.LSTM(4, stateful=False)(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    small = keras.models.clone_model(model)
    graph = kr.trace(model)
    both = list(zip(model.layers, small.layers, strict=True))
    removed = np.zeros(graph.group_count, bool)
    found = recurrent_fits(graph, removed, both)
    names = {fit.layer.name: len(fit.directions) for fit in found.values()}
    around, cell, _, last = (layer.name for layer in model.layers[1:5])
    assert names == {around: 2, cell: 1, last: 1}
