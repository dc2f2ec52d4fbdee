"""Multiply-adds where axis 0 holds more than samples, such as windows."""

import keras
import pytest
from keras import layers, ops

import keras_redundancy as kr

SIZE, WINDOW, CHANNELS = 8, 4, 6
PER_SIDE = SIZE // WINDOW
PIXELS = SIZE * SIZE
GRID = PER_SIDE, WINDOW, PER_SIDE, WINDOW


def windows(x, channels=CHANNELS):
    """Images in windows: (samples * windows, height, width, channels)."""
    x = ops.reshape(x, (-1, *GRID, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, WINDOW, WINDOW, channels))


def images(x):
    x = ops.reshape(x, (-1, PER_SIDE, PER_SIDE, WINDOW, WINDOW, CHANNELS))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, SIZE, SIZE, CHANNELS))


class Windows(layers.Layer):
    """No rule is known for it."""

    def call(self, x):
        return windows(x)


@keras.saving.register_keras_serializable("tests_of_windows")
class InWindows(layers.Layer):
    """A layer made of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(10, activation="relu")
        self.out = layers.Dense(CHANNELS)

    def build(self, shape):
        self.hidden.build((None, WINDOW, WINDOW, CHANNELS))
        self.out.build((None, WINDOW, WINDOW, 10))

    def call(self, x):
        return images(self.out(self.hidden(windows(x))))


def by_hand():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Dense(CHANNELS)(x)
    y = layers.Conv2D(10, 3, padding="same", activation="relu")(windows(x))
    x = layers.Add()([x, images(layers.Dense(CHANNELS)(y))])
    return keras.Model(inputs, layers.Dense(2)(x))


def of_layers():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = InWindows()(layers.Dense(CHANNELS)(x))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize("factory", [by_hand, of_layers])
def test_a_budget_holds_for_all_windows(factory):
    def counted(model):
        """Every kernel is multiplied at every pixel."""
        kernels = [v for v in model.weights if v.name == "kernel"]
        return PIXELS * sum(ops.size(kernel) for kernel in kernels)

    model = factory()
    plan = kr.plan(model, "l1", target={"flops": 0.5})
    small = plan.apply()
    assert plan.flops == (counted(model), counted(small))
    assert kr.flops(small) == counted(small)
    assert 0.35 < counted(small) / counted(model) <= 0.5


def unknown_layer(x):
    return layers.Dense(5)(Windows()(x))


def steps_of_windows(x):
    """Recurrent layers and wrappers, each row of a window a sequence."""
    x = layers.TimeDistributed(layers.Conv1D(5, 3, padding="same"))(windows(x))
    x = ops.reshape(x, (-1, WINDOW, 5))
    return layers.GRU(3)(x)


def pixels(x):
    return layers.Dense(5)(ops.reshape(x, (-1, CHANNELS)))


def kept_in_one_piece(x):
    """Back in place, axis 0 holds samples again."""
    return layers.Dense(5)(images(windows(x)))


def rows_first(x):
    """The batch is on axis 1."""
    x = ops.transpose(x, (1, 0, 2, 3))
    x = layers.EinsumDense("abcd,de->abce", (None, SIZE, 4))(x)
    return layers.Dense(5)(x)


def both_halves(x):
    x = ops.concatenate([x, -x], axis=0)
    x, y = ops.split(layers.Dense(5)(x), 2, axis=0)
    return layers.Dense(4)(x - y)


GRU = 3 * 3 * (5 + 3)
COUNTS = {
    unknown_layer: CHANNELS * 5,
    steps_of_windows: 3 * CHANNELS * 5 + GRU,
    pixels: CHANNELS * 5,
    kept_in_one_piece: CHANNELS * 5,
    rows_first: CHANNELS * 4 + 4 * 5,
    both_halves: 2 * CHANNELS * 5 + 5 * 4,
}


@pytest.mark.parametrize("function", COUNTS)
def test_axes_merged_with_the_batch_count(function):
    for batch in (None, 3):
        shape = (batch, SIZE, SIZE, CHANNELS)
        inputs = keras.Input(batch_shape=shape)
        model = keras.Model(inputs, function(inputs))
        assert kr.flops(model) == PIXELS * COUNTS[function]


def test_an_open_size_merged_with_the_batch():
    inputs = keras.Input((None, 3))
    x = layers.Dense(5)(ops.reshape(inputs, (-1, 3)))
    model = keras.Model(inputs, x)
    assert kr.flops(model, input_shape=(7, 3)) == 7 * 3 * 5
    with pytest.raises(ValueError, match="depend on the data"):
        kr.flops(model)
