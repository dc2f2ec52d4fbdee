"""What the code of a layer or model does besides calling layers on tensors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go


class Hidden(layers.Layer):
    """Two `Dense` layers, with something else between them."""

    def __init__(self):
        super().__init__()
        self.expand, self.project = layers.Dense(12), layers.Dense(16)
        self.drop = layers.Dropout(0.5)

    def build(self, shape):
        self.number = self.add_weight(shape=(), name="number")
        self.rates = {"a": self.add_weight(shape=(12,), name="rate")}
        self.mean = self.add_weight(shape=(12,), trainable=False, name="mean")
        self.expand.build(shape)
        self.project.build((*shape[:-1], 12))

    def call(self, x, training=None):
        x = ops.relu(self.expand(x))
        return self.project(self.between(x, training))


class TimesNumber(Hidden):
    def between(self, x, training):
        return x * self.number


class TimesFunctionOfNumber(Hidden):
    def between(self, x, training):
        return x * ops.exp(self.number)


class TimesRates(Hidden):
    def between(self, x, training):
        return x * self.rates["a"]


class TimesFunctionOfRates(Hidden):
    def between(self, x, training):
        return x * ops.exp(self.rates["a"])


class LessMean(Hidden):
    def between(self, x, training):
        return x - self.mean


class TimesTransposedKernel(Hidden):
    def between(self, x, training):
        return x + ops.matmul(x, ops.transpose(self.expand.kernel)[:, :12])


class MoreInTraining(Hidden):
    def between(self, x, training):
        return x + 7.0 if training else x


class NoiseInTraining(Hidden):
    def between(self, x, training):
        return x * keras.random.uniform((1, 12)) if training else x


class DropoutInTraining(Hidden):
    def between(self, x, training):
        return self.drop(x, training=training) if training else x


def around(block):
    inputs = keras.Input((20,))
    x = layers.Dense(16, activation="relu", name="before")(inputs)
    return keras.Model(inputs, layers.Dense(3)(block(x)))


@pytest.mark.parametrize(
    "cls",
    [
        TimesRates,
        TimesFunctionOfRates,
        TimesTransposedKernel,
    ],
)
def test_a_block_that_computes_with_variables_stays(cls):
    """In a graph, their values would be constants, which are not trained."""
    model = models.randomized(around(cls()))
    plan = kr.plan(model, ratio=0.5)
    assert "computes with variables" in plan["before"].reason
    assert plan["before"].reason_code == "not_opened"
    small = plan.apply()
    assert len(small.weights) == len(model.weights)
    models.assert_same_function(model, small)


@pytest.mark.parametrize("cls", [TimesNumber, TimesFunctionOfNumber, LessMean])
def test_numbers_and_weights_that_are_not_trained_are_followed(cls):
    graph = assert_copies_go(around(cls()))
    assert "before" in [space.name for space in graph.prunable]


@pytest.mark.parametrize("inline", [None, True, False])
@pytest.mark.parametrize("cls", [MoreInTraining, NoiseInTraining])
def test_a_block_that_does_something_else_in_training_stays_whole(cls, inline):
    model = models.randomized(around(cls()))
    plan = kr.plan(model, ratio=0.5, inline=inline)
    inside = [x for x in plan.decisions if "in_training" in x.space.name]
    assert len(inside) == 2
    for decision in inside:
        assert "training=True" in decision.reason
        assert decision.reason_code == "other_in_training"
    small = plan.apply()
    assert type(small.layers[2]) is cls
    assert small.layers[1].units == 8  # The block reads what is left.


class Wide(keras.Layer):
    """A block whose width is an argument, and that adds 7 in training."""

    def __init__(self, width, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.scale = width, scale
        self.expand, self.project = layers.Dense(width), layers.Dense(16)

    def build(self, shape):
        if not self.expand.built:
            self.expand.build(shape)
        self.project.build((*shape[:-1], self.width))

    def call(self, x, training=None):
        x = self.project(ops.relu(self.expand(x)) * self.scale)
        return x + 7.0 if training else x

    def get_config(self):
        config = {"width": self.width, "scale": self.scale}
        return {**super().get_config(), **config}


class PerWidth(Wide):
    def call(self, x, training=None):
        return super().call(x / self.width, training)


class Unsaved(Wide):
    def __init__(self, sizes):
        super().__init__(sum(sizes))

    def get_config(self):
        raise NotImplementedError


@pytest.mark.parametrize("inline", [None, True, False])
def test_a_block_that_does_something_else_in_training_is_made_anew(inline):
    model = models.randomized(around(Wide(12)))
    models.plant(model)
    plan = kr.plan(model, tau=0.9999, inline=inline)
    assert len(models.widths(plan)) == 4
    small = plan.apply()
    assert type(small.layers[2]) is Wide
    models.assert_same_function(model, small)
    data = models.random_inputs(model)
    answers = [models.numpy(x(data, training=True)) for x in (model, small)]
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-3)


def test_a_block_that_its_class_does_not_make_as_cut_loses_its_branch():
    """Its argument is no width alone, which shows once the layer is made."""
    model = models.randomized(around(PerWidth(12)))
    models.plant(model)
    with pytest.warns(UserWarning, match=r"\(PerWidth\) does something else"):
        small = kr.prune(model, tau=0.9999)
    models.assert_same_function(model, small)


def test_a_block_with_a_branch_that_cannot_be_saved_keeps_its_class():
    model = models.randomized(around(Unsaved([5, 7])))
    with pytest.warns(UserWarning, match="Unsaved"):
        small = kr.prune(model, ratio=0.5)
    assert type(small.layers[2]) is Unsaved


def test_blocks_with_a_branch_that_share_a_layer_are_refused():
    first, second = Wide(12), Wide(12)
    second.expand = first.expand
    model = models.randomized(around(keras.Sequential([first, second])))
    with pytest.raises(ValueError, match="share the variable"):
        kr.plan(model, ratio=0.5)


def differs_in_training(model):
    data = models.random_inputs(model)
    answers = [models.numpy(model(data, training=x)) for x in (True, False)]
    return np.abs(np.subtract(*answers)).max() > 1e-3


def test_dropout_in_training_alone():
    model = models.randomized(around(DropoutInTraining()))
    data = models.random_inputs(model)
    small = kr.prune(model, ratio=0.5)
    assert small.count_params() < model.count_params()
    assert differs_in_training(small)
    calm = [models.numpy(small(data)) for _ in "ab"]
    np.testing.assert_array_equal(*calm)


class Net(keras.Model):
    def __init__(self, block):
        super().__init__()
        self.block, self.head = block, layers.Dense(3)

    def call(self, x, training=None):
        return self.head(self.between(self.block(x), training))

    def between(self, x, training):
        return x


class NoisyNet(Net):
    def between(self, x, training):
        return x + 7.0 if training else x


class DropoutNet(Net):
    def __init__(self, block):
        super().__init__(block)
        self.drop = layers.Dropout(0.5)

    def between(self, x, training):
        return self.drop(x) if training else x


def test_a_model_that_does_something_else_in_training():
    model = NoisyNet(layers.Dense(16))
    model(np.zeros((2, 5), "float32"))
    with pytest.warns(UserWarning, match="training=True, which no copy"):
        small = kr.prune(model, ratio=0.5)
    assert small.count_params() < model.count_params()
    with pytest.warns(UserWarning, match="NoisyNet"):
        kr.plan(model, ratio=0.5)


def test_a_model_with_dropout_in_training_alone():
    model = DropoutNet(layers.Dense(16))
    model(np.zeros((2, 5), "float32"))
    models.randomized(model)
    assert differs_in_training(kr.prune(model, ratio=0.5))


class Positions(layers.Layer):
    """Calls a layer with weights on numbers that are no tensor of the graph."""

    def __init__(self):
        super().__init__()
        self.project, self.embed = layers.Dense(12), layers.Embedding(6, 12)

    def build(self, shape):
        self.project.build(shape)
        self.embed.build((6,))

    def call(self, x):
        return self.project(x) + self.embed(ops.arange(6))


class PositionsNet(Net):
    """The graph inside of which takes its place."""


@pytest.mark.parametrize("is_model", [False, True])
def test_layers_that_are_called_on_constants_keep_their_weights(
    is_model, tmp_path
):
    if is_model:
        model = PositionsNet(Positions())
        model(np.zeros((2, 6, 5), "float32"))
    else:
        inputs = keras.Input((6, 5))
        x = layers.Flatten()(Positions()(inputs))
        model = keras.Model(inputs, layers.Dense(3)(x))
    models.randomized(model)
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([0, 1]), np.array([5, 7]))
    data = np.random.default_rng(0).normal(size=(4, 6, 5)).astype("float32")
    plan = kr.plan(model, tau=0.9999)
    small = plan.apply()
    models.assert_same_function(model, small, data)
    assert small.count_params() == plan.parameters[1] < model.count_params()
    (embeddings,) = (x for x in small.weights if x.shape[0] == 6)
    assert embeddings.shape == (6, 10)
    before = models.numpy(embeddings)
    small.compile("sgd", "mse", run_eagerly=models.EAGERLY)
    small.fit(data, models.numpy(small(data)) + 1.0, verbose=0)
    assert (models.numpy(embeddings) != before).any()
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again, data)
