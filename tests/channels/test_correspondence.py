"""Units that hold several channels of one layer: which is which?"""

import time

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.channels import correspondence, graph, labels
from tests.channels.images import shuffled
from tests.rule_checks import assert_copies_go


def dense_model(between, width=24):
    inputs = keras.Input((20,))
    x = layers.Dense(width, activation="relu", name="a")(inputs)
    x = layers.Flatten()(between(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def dense(x, width, name):
    return layers.Dense(width, name=name)(x)


def halves(x):
    """A unit is an entry of the first half and one of the second."""
    x = layers.Reshape((2, x.shape[-1] // 2))(x)
    return x[:, 0] + 2 * ops.tanh(x[:, 1])


def rolled_halves(x):
    """Units (18, 6), (19, 7), ... (23, 11), and (0, 12), ... (5, 17)."""
    return halves(ops.roll(x, 6, axis=-1))


def rolled_image(x):
    """Nine places of eight units, the first of them anywhere."""
    x = layers.Reshape((2, 2, 6))(ops.roll(x, 3, axis=-1))
    return layers.Conv2D(5, 2, activation="relu", name="c")(x)


def rolled_groups(x):
    """Each half is read by other filters."""
    x = layers.Reshape((4, 6))(x)
    x = layers.Conv1D(12, 2, activation="relu", name="b")(x)
    x = ops.roll(x, 2, axis=-1)
    return layers.Conv1D(8, 2, groups=2, activation="relu", name="g")(x)


def crossing_parts(x):
    """Sums with what two layers wrote, one behind the other, turned."""
    a, b = dense(x, 8, "b"), dense(x, 8, "c")
    both = ops.roll(ops.concatenate([a, ops.tanh(b)], axis=-1), 5, axis=-1)
    both = both + dense(x, 16, "d")
    return ops.concatenate([both, a * b], axis=-1)


def gates_by_hand(x):
    """Four gates, written by one kernel, cross over."""
    x = ops.roll(dense(x, 48, "b"), -8, axis=-1)
    x = layers.Reshape((4, 12))(x)
    update, forget, output, new = ops.unstack(x, axis=1)
    state = ops.sigmoid(update) * ops.tanh(new) + ops.sigmoid(forget)
    return ops.sigmoid(output) * ops.tanh(state)


CROSSING = {
    f.__name__: f
    for f in (
        rolled_halves,
        rolled_image,
        rolled_groups,
        crossing_parts,
        gates_by_hand,
    )
}


def mirrored(x):
    return x + ops.flip(x, axis=-1)


def mirrored_unlike(x):
    return x + ops.tanh(ops.flip(x, -1))


def turned(x):
    """Six cycles of four channels, in which all are alike."""
    return x + ops.tanh(ops.roll(x, 6, axis=-1))


def turned_images(x):
    x = layers.Reshape((3, 8))(x)
    return x + layers.Permute((1, 2))(ops.flip(x, axis=1))


def shuffled_and_added(x):
    return shuffled(x, 2) + dense(x, 24, "b")


def shuffled_twice(x):
    """3 groups of 8 and 8 of 3: back where they were, and added to it."""
    y = ops.swapaxes(layers.Reshape((3, 8))(x), 1, 2)
    y = layers.Flatten()(ops.swapaxes(ops.tanh(y), 1, 2))
    return x + y


def grouped_after_a_shuffle(x):
    x = layers.Reshape((2, 12))(x)
    x = layers.Conv1D(16, 1, groups=2, activation="relu", name="g")(x)
    x = shuffled(x, 2)
    x = layers.Conv1D(16, 1, groups=2, activation="relu", name="h")(x)
    return x + layers.Conv1D(16, 1, name="c")(x)


def halves_swapped(x):
    """Each half meets the other: a tie of a unit with itself."""
    a, b = ops.split(x, 2, axis=-1)
    return ops.concatenate([a, b], -1) * ops.concatenate([b, a], -1)


def image_and_transposed(x):
    x = layers.Reshape((2, 2, 6))(x)
    y = layers.Conv2D(6, 1, name="b")(layers.Permute((2, 1, 3))(x))
    return layers.Flatten()(x + y) + dense(layers.Flatten()(y), 24, "c")


def tiled_and_repeated(x):
    """Unit i meets places 4 i to 4 i + 3, and i, i + 6, i + 12, i + 18."""
    b, c = dense(x, 6, "b"), dense(x, 6, "c")
    y = ops.repeat(b, 4, axis=-1) * dense(x, 24, "d")
    z = ops.tile(c, 4) * dense(x, 24, "e")
    return ops.concatenate([y, z], -1)


def a_mirror_in_each_half(x):
    x = layers.Reshape((2, 12))(x)
    return halves(layers.Flatten()(x + ops.flip(x, -1)))


ALIKE = {
    f.__name__: f
    for f in (
        mirrored,
        mirrored_unlike,
        turned,
        turned_images,
        shuffled_and_added,
        shuffled_twice,
        grouped_after_a_shuffle,
        halves_swapped,
        image_and_transposed,
        tiled_and_repeated,
        a_mirror_in_each_half,
    )
}
CASES = CROSSING | ALIKE


@pytest.mark.parametrize("name", CASES)
def test_copies_go_without_a_loss(name, tmp_path):
    found = assert_copies_go(dense_model(CASES[name]), tmp_path)
    stays = [s.name for s in found.spaces if s.frozen and s.producers]
    assert stays == ["top"]


@pytest.mark.parametrize("name", CROSSING)
def test_without_colors_copies_would_be_mixed_up(name, monkeypatch):
    """The cases above can fail: here, places are matched in their order."""
    monkeypatch.setattr(graph, "colors", lambda store, group: store.births())
    with pytest.raises(AssertionError):
        assert_copies_go(dense_model(CASES[name]))


def test_units_that_cross_over_are_found():
    model = dense_model(rolled_halves)
    (space,) = kr.trace(model).prunable
    (producer,) = (
        axis
        for axis in space.axes
        if axis.on.variable is model.get_layer("a").kernel
    )
    units = {tuple(row) for row in producer.positions}
    first = [(18 + i, 6 + i) for i in range(6)]
    second = [(i, 12 + i) for i in range(6)]
    expected = {*first, *second}
    assert units in (expected, {(b, a) for a, b in expected})


# --- colors themselves ------------------------------------------------------


def random_store(seed, units=12, births=3, places=4):
    """Values of `places` channels per unit, tied at random within units.

    All units are tied in the same way, but each holds its channels at other
    places of the values.

    Returns:
        The store, and labels of shape (units, births, places): those of all
        units with the same second and third index correspond.
    """
    rng = np.random.default_rng(seed)
    store = labels.LabelStore()
    true = np.empty((units, births, places), int)
    for birth in range(births):
        ids = store.new(units * places)
        true[:, birth] = rng.permutation(ids).reshape(units, places)
    nodes = [(b, p) for b in range(births) for p in range(places)]
    for number in range(1, len(nodes)):
        for other in rng.choice(number, min(number, 2), replace=False):
            order = rng.permutation(units)
            first, second = true[order].transpose(1, 2, 0)[
                tuple(np.transpose([nodes[number], nodes[other]]))
            ]
            store.tie(first, second)
    return store, true


@pytest.mark.parametrize("seed", range(8))
def test_labels_correspond_where_their_ties_do(seed):
    store, true = random_store(seed)
    color = correspondence.colors(store, store.groups())[true]
    np.testing.assert_array_equal(color, color[:1].repeat(len(color), axis=0))
    assert len(np.unique(color[0])) == color[0].size


@pytest.mark.parametrize("seed", range(8))
def test_ties_between_interchangeable_labels_are_kept(seed):
    """Rings of labels that are all alike: neighbours stay neighbours."""
    rng = np.random.default_rng(seed)
    store = labels.LabelStore()
    rings = rng.permutation(store.new(60)).reshape(10, 6)
    store.tie(rings.reshape(-1), np.roll(rings, 1, axis=1).reshape(-1))
    others = rng.permutation(store.new(60)).reshape(10, 6)
    store.tie(rings.reshape(-1), others.reshape(-1))
    group = store.groups()
    assert len(np.unique(group)) == 10
    color = correspondence.colors(store, group)
    for values in (rings, others):
        assert len(np.unique(color[values])) == 6
    order = np.argsort(color[rings], axis=1)
    matched = np.take_along_axis(rings, order, axis=1)
    place = np.empty(120, int)
    place[matched] = np.arange(6)
    successor = place[np.roll(rings, 1, axis=1)]
    steps = np.take_along_axis(successor, order, axis=1)
    np.testing.assert_array_equal(steps, steps[:1].repeat(10, axis=0))
    partner = np.argsort(color[others], axis=1)
    np.testing.assert_array_equal(
        place[np.take_along_axis(rings, partner, axis=1)],
        place[np.take_along_axis(rings, partner, axis=1)][:1].repeat(10, 0),
    )


def test_values_without_twins_keep_their_numbers():
    store = labels.LabelStore()
    a, b = store.new(4), store.new(4)
    store.tie(a, b)
    color = correspondence.colors(store, store.groups())
    np.testing.assert_array_equal(color, store.births())


def test_many_channels_do_not_take_long():
    """25,088 neurons that become an image, and a mirror of 4,096 channels."""
    inputs = keras.Input((8,))
    x = layers.Dense(7 * 7 * 512, name="a")(inputs)
    x = layers.Conv2D(8, 3)(layers.Reshape((7, 7, 512))(x))
    y = mirrored(layers.Dense(4096, name="b")(inputs))
    y = layers.Dense(3)(ops.concatenate([layers.Flatten()(x), y], -1))
    model = keras.Model(inputs, y)
    start = time.perf_counter()
    sizes = [s.size for s in kr.trace(model).prunable]
    assert time.perf_counter() - start < 5
    assert sorted(sizes) == [8, 512, 2048]
