"""Layers made of layers, and subclassed models: the graphs inside."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models, subclassed
from tests.rule_checks import assert_copies_go, between

RANDOM = np.random.default_rng(0)


def images(size):
    return RANDOM.normal(size=(5, size, size, 3)).astype("float32")


def ids(length):
    return RANDOM.integers(0, 11, (5, length))


SUBCLASSED = {
    "ResNet": images(8),
    "UNet": images(16),
    "Encoder": images(8),
    "Decoder": images(8)[:, 0, 0, :2],
    "Discriminator": images(16),
    "TCN": images(8)[:, 0],
    "Mixer": images(8),
    "ViT": images(8),
    "Translator": {"source": ids(6), "target": ids(7)},
    "Siamese": [images(4)[:, 0, 0], images(4)[:, 1, 0]],
}


def called(name):
    model = getattr(subclassed, name)()
    model(SUBCLASSED[name])
    return models.randomized(model)


def numbers(model, x):
    found = keras.tree.flatten(model(x))
    return [ops.convert_to_numpy(y) for y in found]


def assert_same_numbers(a, b, x):
    for one, other in zip(numbers(a, x), numbers(b, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# --- layers -----------------------------------------------------------------


@pytest.fixture(params=["FeedForward", "Scaled"])
def feed_forward(request):
    cls = getattr(subclassed, request.param)
    return between(cls(12, name="block"))


def test_channels_inside_are_traced(feed_forward):
    graph = kr.trace(feed_forward)
    names = {space.name: space.size for space in graph.prunable}
    assert names == {"block-expand": 12, "before + block-project": 16}
    models.assert_same_function(feed_forward, graph.model)


def test_copies_inside_go(feed_forward):
    assert_copies_go(feed_forward)


def test_the_model_that_is_traced_does_not_change(feed_forward):
    before = [
        (id(x), x.name, len(x._inbound_nodes), len(x._outbound_nodes))
        for x in feed_forward._flatten_layers()
    ]
    kr.prune(feed_forward, ratio=0.5)
    after = [
        (id(x), x.name, len(x._inbound_nodes), len(x._outbound_nodes))
        for x in feed_forward._flatten_layers()
    ]
    assert before == after


def test_layers_in_a_layer_in_a_layer():
    class Outer(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            kinds = subclassed.FeedForward, subclassed.Scaled
            self.blocks = [
                kind(n) for kind, n in zip(kinds, (9, 11), strict=True)
            ]

        def call(self, x, training=None):
            for block in self.blocks:  # Keras lets all layers be given that.
                x = block(x, training=training)
            return x

    model = between(Outer(name="outer"))
    graph = kr.trace(model)
    assert {space.size for space in graph.prunable} == {9, 11, 16}
    names = [x.name for x in graph.prunable]
    assert any("outer-" in name for name in names)
    # PyTorch takes no dots, however deep the layers lie.
    assert not any("." in name for name in names)
    assert_copies_go(model)


def test_a_block_that_is_called_twice():
    block = subclassed.FeedForward(12)
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(3)(block(block(inputs))))
    graph = assert_copies_go(model)
    assert [space.size for space in graph.prunable] == [12]


def test_an_unknown_class_that_extends_one_of_keras():
    class Cached(layers.Dense):
        def call(self, x, cache=None):
            if cache is not None:
                x = cache
            return super().call(x)

    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.expand, self.project = Cached(12), Cached(16)

        def call(self, x):
            return self.project(ops.relu(self.expand(x)), cache=None)

    small = kr.prune(between(Block()), ratio=0.5)
    assert [type(x) for x in small.layers[2].layers if x.weights] == [
        layers.Dense,
        layers.Dense,
    ]


def test_an_unknown_class_that_leaves_out_a_bias():
    class WithoutKeyBias(layers.MultiHeadAttention):
        def build(self, query, value, key=None):
            super().build(query, value, key)
            key_dense = self._key_dense
            key_dense._untrack_variable(key_dense.bias)
            key_dense.bias = None

        def call(self, query, value):
            return super().call(query, value)

    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.attention = WithoutKeyBias(4, 2)

        def build(self, shape):
            self.attention.build(shape, shape)

        def call(self, x):
            return x + self.attention(x, x)

    inputs = keras.Input((5, 8))
    x = Block()(layers.Dense(8)(inputs))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    models.plant(model)
    plan = kr.plan(model, tau=0.9999)
    removed = {len(x.selection.removed) for x in plan.decisions if not x.reason}
    assert removed == {1, 2}  # Of four heads, and of eight units around them.
    models.assert_same_function(model, plan.apply())


def test_a_layer_that_sets_training_for_those_behind_it():
    class Neck(layers.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Conv2D(6, 1), layers.Conv2D(3, 1)
            self.resize = layers.Resizing(
                4, 4
            )  # By default with training=True.
            self.norm = layers.BatchNormalization()

        def build(self, shape):
            self.first.build(shape)
            self.norm.build((*shape[:-1], 6))
            self.last.build((*shape[:-1], 6))

        def call(self, x):
            return self.last(self.norm(self.resize(self.first(x))))

    inputs = keras.Input((8, 8, 3))
    graph = kr.trace(keras.Model(inputs, Neck()(inputs)))
    assert [space.size for space in graph.prunable] == [6]


class Doubtful(layers.Layer):
    """A layer around two `Dense` layers, with something else besides."""

    def __init__(self):
        super().__init__()
        self.expand, self.project = layers.Dense(12), layers.Dense(16)

    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False, name="count")
        self.expand.build(shape)
        self.project.build((*shape[:-1], 12))

    def call(self, x):
        x = ops.relu(self.expand(x))
        return self.project(self.between(x))


class Counting(Doubtful):
    def between(self, x):
        self.count.assign(self.count + 1)
        return x


class ByValue(Doubtful):
    def between(self, x):
        return x if ops.max(x) > 0.5 else -x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape)


class ByBatch(Doubtful):
    def between(self, x):
        return x / (x.shape[0] or 7)


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Counting, "changes variables"),
        (ByValue, r"test_inside.py, line \d+\)"),
        (ByBatch, "returns other numbers"),
    ],
)
def test_what_cannot_be_followed_stays(cls, reason):
    model = between(cls())
    decision = kr.plan(model, ratio=0.5)["before"]
    assert decision.reason_code == "not_opened"
    assert re.search(reason, decision.reason)


# --- models -----------------------------------------------------------------


@pytest.mark.parametrize("name", SUBCLASSED)
def test_subclassed_models(name, tmp_path):
    model, x = called(name), SUBCLASSED[name]
    plan = kr.plan(model, ratio=0.5)
    assert_same_numbers(model, kr.prune(model, ratio=0), x)
    small = plan.apply()
    assert small.count_params() == plan.parameters[1] < model.count_params()
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert_same_numbers(small, again, x)
    small.compile("sgd", "mse", run_eagerly=models.EAGERLY)
    small.train_on_batch(x, small(x))


@pytest.mark.parametrize("inputs", [[(8, 8, 3)], []])
def test_functional_shares_the_variables(inputs):
    model = called("ResNet")
    graph = kr.functional(model, *map(keras.Input, inputs))
    assert graph.input_shape == (None, 8, 8, 3)
    assert set(map(id, graph.variables)) == set(map(id, model.variables))
    assert_same_numbers(model, graph, SUBCLASSED["ResNet"])


def test_functional_takes_the_arguments_of_the_call():
    class Sum(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x, y, scale=1.0):
            return self.dense(x) + scale * self.dense(y)

    model, (a, b) = Sum(), SUBCLASSED["Siamese"]
    wanted = model(a, b, scale=2.0)
    inputs = keras.Input((3,)), keras.Input((3,))
    graph = kr.functional(model, *inputs, scale=2.0)
    wanted, found = map(models.numpy, (wanted, graph([a, b])))
    np.testing.assert_allclose(wanted, found, rtol=1e-6)


def test_a_subclassed_model_with_data():
    model, x = called("ResNet"), images(8)
    small = kr.prune(model, ratio=0.5, data=x)
    cut = kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop())
    wanted = numbers(model, x)[0]
    errors = [np.square(numbers(y, x)[0] - wanted).mean() for y in (small, cut)]
    assert errors[0] < errors[1]


def test_a_subclassed_model_stays_compiled():
    model = called("Discriminator")
    model.compile("adam", "binary_crossentropy")
    small = kr.prune(model, ratio=0.5)
    assert small.optimizer.name == "adam"
    assert small.loss == "binary_crossentropy"


def test_a_model_that_depends_on_values_is_refused():
    model = subclassed.Early()
    with warnings.catch_warnings():
        # Keras says so on PyTorch.
        warnings.filterwarnings("ignore", "`build..` was called")
        model(np.zeros((2, 4)))
    # On PyTorch Keras runs it, and so notes the shape that it reads.
    on_torch = keras.backend.backend() == "torch"
    said = "no graph to follow" if on_torch else "input_shape="
    with pytest.raises(TypeError, match=said):
        kr.prune(model, ratio=0.5)
    with pytest.raises(TypeError, match=r"subclassed.py, line \d+"):
        kr.prune(model, ratio=0.5, input_shape=(4,))


def test_functional_of_what_is_no_built_layer():
    with pytest.raises(ValueError, match="Call it once"):
        kr.functional(subclassed.ResNet(), keras.Input((8, 8, 3)))
    with pytest.raises(TypeError, match="Expected a keras"):
        kr.functional("resnet", keras.Input((8, 8, 3)))
    layer = keras.layers.Dense(3)
    layer.build((None, 8))
    for given in ((), (np.zeros((2, 8)),)):
        with pytest.raises(TypeError, match="No symbolic tensor was received"):
            kr.functional(layer, *given)


def test_a_part_that_returns_none_reads_its_weights():
    """They are weights in the graph inside too, not numbers of that moment."""

    class Part(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape[-1:], name="scale")

        def call(self, x):
            return x * self.scale, None

    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.expand, self.part = layers.Dense(12), Part()

        def build(self, shape):
            self.expand.build(shape)
            self.part.build((*shape[:-1], 12))

        def call(self, x):
            return self.part(self.expand(x))[0]

    model = between(Block())
    graph = kr.trace(model)
    assert {12, 16} == {space.size for space in graph.prunable}
    assert {id(x) for x in model.weights} == {
        id(x) for x in graph.model.weights
    }


class Experts(layers.Layer):
    """Kernels of two experts, which no layer holds, and one of a gate."""

    def __init__(self, hidden=10, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.gate = hidden, layers.Dense(2)

    def get_config(self):
        return {**super().get_config(), "hidden": self.hidden}

    def build(self, shape):
        width = shape[-1]
        self.gate.build(shape)
        self.wide, self.other, self.narrow = (
            self.add_weight((2, *sizes), name=name)
            for name, sizes in (
                ("wide", (width, self.hidden)),
                ("other", (width, self.hidden)),
                ("narrow", (self.hidden, 12)),
            )
        )

    def call(self, x):
        wide = ops.einsum("bth,ehm->betm", x, self.wide)
        other = ops.einsum("bth,ehm->betm", x, self.other)
        x_of = ops.einsum("betm,emh->beth", ops.silu(wide) * other, self.narrow)
        shares = ops.softmax(self.gate(x))
        return ops.einsum("bte,beth->bth", shares, x_of)


def test_weights_of_a_layer_are_kernels_where_they_are_multiplied():
    model = models.randomized(between(Experts(name="experts")))
    graph = kr.trace(model)
    (space,) = (x for x in graph.prunable if x.size == 10)
    assert space.name == "experts-wide_weight + experts-other_weight"
    models.plant(model, spaces=[space])
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("experts").hidden == 7
    models.assert_same_function(model, small)


def test_kernels_of_a_layer_are_cut_by_data():
    model = models.randomized(between(Experts(name="experts")))
    data = models.random_inputs(model, batch=64)
    wanted, errors = model(data), []
    for options in ({"data": data}, {"absorb": "drop"}):
        small = kr.prune(model, ratio=0.5, skip="top", **options)
        errors.append(float(np.square(np.subtract(wanted, small(data))).mean()))
    assert errors[0] < errors[1]


@keras.saving.register_keras_serializable(__name__)
class Scale(layers.Layer):
    """A weight for each channel that it reads, and no layers."""

    def build(self, shape):
        self.scale = self.add_weight(shape[-1:], name="scale")

    def call(self, x):
        return x * self.scale


def test_parts_with_weights_of_their_own_keep_their_class_in_an_inline_block(
    tmp_path,
):
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(12), layers.Dense(8), Scale()]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = models.randomized(between(Block()))
    plan = kr.plan(model, ratio=0.5)
    cut = {x.space.size for x in plan.decisions if len(x.selection.removed)}
    assert cut == {8, 12, 16}  # What the scale reads sets its width.
    small = plan.apply()
    kept = [type(x) for x in small.layers[2].layers if x.weights]
    assert kept == [layers.Dense, layers.Dense, Scale]
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)
