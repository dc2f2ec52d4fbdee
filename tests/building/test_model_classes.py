"""What models of the user's own classes keep beside their graph."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from tests import models

TENSORFLOW = keras.backend.backend() == "tensorflow"
STOCK = {"jit_compile": False, "run_eagerly": models.EAGERLY}


def network(cls, **options):
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    return cls(inputs, layers.Dense(3, name="top")(x), **options)


def data():
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    return x, x[:, :3]


class Weighted(keras.Model):
    def __init__(self, *args, alpha=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.alpha = alpha

    def compute_loss(self, *args, **kwargs):
        return self.alpha * super().compute_loss(*args, **kwargs)


class Tracked(keras.Model):
    """Its training needs a metric that is set after it is made."""

    def train_step(self, *args):
        found = super().train_step(*args)
        if self.tracker.name and TENSORFLOW:  # JAX has no states in a step.
            self.tracker.update_state(found["loss"])
        return found


class Told(keras.Model):
    """Its config says what it keeps by another name."""

    def __init__(self, *args, alpha=1.0, names=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.strength, self.labels = 2 * alpha, list(names)

    def get_config(self):
        own = {"alpha": self.strength / 2, "names": self.labels}
        return super().get_config() | own


class Needy(keras.Model):
    def __init__(self, *args, alpha, **kwargs):
        super().__init__(*args, **kwargs)
        self._hidden = alpha


def test_an_argument_of_the_constructor_that_is_an_attribute():
    model = network(Weighted, alpha=10.0)
    model.compile("sgd", "mse", **STOCK)
    small = kr.prune(model, tau=1.0)
    assert type(small) is Weighted
    assert small.alpha == 10.0
    expected = model.evaluate(*data(), verbose=0)
    assert small.evaluate(*data(), verbose=0) == pytest.approx(expected)


def test_an_argument_of_the_constructor_that_the_config_tells():
    model = network(Told, alpha=3.0, names=["a", "b"])
    small = kr.prune(model, ratio=0.25)
    assert type(small) is Told
    assert (small.strength, small.labels) == (6.0, ["a", "b"])


def test_a_class_that_needs_what_nothing_tells_becomes_a_plain_one():
    model = network(Needy, alpha=1.0)
    with pytest.warns(UserWarning, match="Needy needs alpha, which nothing"):
        small = kr.prune(model, ratio=0.25)
    assert not isinstance(small, Needy)
    assert small.get_layer("hidden").units == 6


def test_an_argument_that_nothing_tells_is_left_out_with_a_warning():
    class Silent(keras.Model):
        def __init__(self, *args, alpha=1.0, **kwargs):
            super().__init__(*args, **kwargs)
            self.doubled = 2 * alpha

    model = network(Silent, alpha=4.0)
    with pytest.warns(UserWarning, match="Silent.* without alpha: keep"):
        small = kr.prune(model, ratio=0.25)
    assert small.doubled == 8.0


def test_attributes_that_were_set_later():
    model = network(Tracked)
    model.tracker = keras.metrics.Mean(name="own")
    model.rates, model.note = {"a": [0.1, 0.2]}, "kept"
    model.first, model.table = model.get_layer("hidden"), np.arange(3)
    model.function = lambda x: model.first(x)
    model.random = keras.random.SeedGenerator(3)
    model.helper = keras.optimizers.SGD(0.3)
    model.compile("sgd", "mse", **STOCK)
    model.fit(*data(), verbose=0)
    small = kr.prune(model, ratio=0.25)
    assert small.tracker is not model.tracker
    assert small.tracker.name == "own"
    assert float(small.tracker.result()) == 0
    assert (small.rates, small.note) == ({"a": [0.1, 0.2]}, "kept")
    assert small.first is small.get_layer("hidden")
    assert small.table is not model.table
    assert list(small.table) == [0, 1, 2]
    assert small.random.get_config()["seed"] == 3
    assert float(small.helper.learning_rate) == pytest.approx(0.3)
    assert small.helper is not model.helper
    assert small.function(data()[0]).shape == (16, 6)
    assert len(small.fit(*data(), verbose=0).epoch) == 1
    assert "own" in [metric.name for metric in small.metrics]


def test_a_dictionary_of_arrays_is_copied():
    model = network(Tracked)
    model.means = {"a": np.zeros(3), "b": np.ones(2)}
    small = kr.prune(model, ratio=0.25)
    assert small.means["b"] is not model.means["b"]
    assert [x.tolist() for x in small.means.values()] == [[0] * 3, [1] * 2]


def test_what_cannot_be_copied_is_named():
    model = network(Tracked)
    model.teacher = layers.Dense(2)
    model.other = object()
    with pytest.warns(UserWarning, match=r"in teacher, other, .*small\.teach"):
        small = kr.prune(model, ratio=0.25)
    assert not hasattr(small, "teacher")


def test_weights_of_layers_that_are_not_in_the_graph_are_named():
    class Projected(keras.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.project = layers.Dense(2)

    model = network(Projected)
    model.project.build((None, 3))
    with pytest.warns(UserWarning, match=r"project \(its weights\)"):
        kr.prune(model, ratio=0.25)


def test_a_model_of_a_class_of_keras_keeps_what_can_be_copied():
    model = network(keras.Model)
    model.note, model.other = "kept", object()
    assert kr.prune(model, ratio=0.25).note == "kept"


def test_a_nested_model_keeps_its_attributes():
    inputs = keras.Input((6,))
    inner = network(Weighted, alpha=2.0, name="inner")
    inner.note = "kept"
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    small = kr.prune(model, ratio=0.25).get_layer("inner")
    assert (small.alpha, small.note) == (2.0, "kept")


def test_a_sequential_class():
    class Noted(keras.Sequential):
        pass

    model = Noted([keras.Input((6,)), layers.Dense(8), layers.Dense(2)])
    model.note = "kept"
    model.compile("sgd", "mse", **STOCK)
    x, y = data()
    model.fit(x, y[:, :2], verbose=0)
    small = kr.prune(model, ratio=0.25)
    assert (type(small), small.note) == (Noted, "kept")


def test_training_with_cuts_goes_on_with_the_attributes():
    model = network(Tracked)
    model.tracker = keras.metrics.Mean(name="own")
    model.compile("sgd", "mse", **STOCK)
    found = kr.fit_and_prune(
        model,
        *data(),
        prune={"ratio": 0.2},
        epochs=2,
        floor=99.0,
        monitor="loss",
        verbose=0,
    )
    assert len(found.cuts) == 1
    assert isinstance(found.model.tracker, keras.metrics.Mean)


# --- layers and metrics -----------------------------------------------------


class Scale(layers.Layer):
    """Its config carries neither a name nor a dtype."""

    def __init__(self, k=1.0, **kwargs):
        super().__init__(**kwargs)
        self.k = k

    def call(self, x):
        return x * self.k

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {"k": self.k}


class Swallows(layers.Layer):
    def __init__(self, **kw):
        super().__init__(**kw)

    def call(self, x):
        return x * 2


class Fixed(layers.Layer):
    """Its constructor takes nothing of what every layer's does."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def call(self, x):
        return x * self.k


class Composite(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Scale(2.0, name="within", dtype="mixed_bfloat16")

    def call(self, x):
        return self.inner(x)


def named(layer, *, frozen=False):
    inputs = keras.Input((5, 6))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    x = layer(layers.Dense(4)(x))
    layer.trainable = not frozen
    return models.randomized(keras.Model(inputs, [x, layers.Dense(3)(x)]))


LAYERS = {
    "no name in the config": lambda: Scale(2.0, name="depth", dtype="float16"),
    "no name of its own": lambda: Scale(3.0, dtype="mixed_bfloat16"),
    "keywords": lambda: Swallows(name="depth", dtype="float16"),
    "wrapped": lambda: layers.TimeDistributed(
        Scale(2.0, name="inner", dtype="mixed_bfloat16"), name="outer"
    ),
    "inside": lambda: Composite(name="outer"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_names_and_dtypes_that_no_config_carries(name):
    model = named(LAYERS[name](), frozen=True)
    small = kr.prune(model, ratio=0.25, data=models.random_inputs(model))
    assert small.output_names == model.output_names
    assert [x.name for x in small.layers] == [x.name for x in model.layers]
    old, new = (_keras.flat_layers(x)[1:] for x in (model, small))
    for layer, its_copy in zip(old, new, strict=True):
        assert its_copy.name == layer.name
        assert its_copy.dtype_policy.name == layer.dtype_policy.name
        assert its_copy.trainable == layer.trainable


def test_a_dictionary_of_losses_goes_by_the_names():
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(
        inputs, [Scale(name="depth")(layers.Dense(3)(x)), layers.Dense(3)(x)]
    )
    last = model.output_names[1]
    model.compile("sgd", {"depth": "mse", last: "mse"}, **STOCK)
    small = kr.prune(model, ratio=0.25)
    x, y = data()
    assert len(small.fit(x, {"depth": y, last: y}, verbose=0).epoch) == 1


def test_an_operation_that_is_made_anew_keeps_its_name():
    inputs = keras.Input((4, 6))
    x = layers.Dense(8, name="hidden")(inputs)
    x = keras.ops.reshape(x, (-1, 2, 2, 8))
    name = x._keras_history.operation.name
    x = layers.Dense(2)(layers.Flatten()(x))
    small = kr.prune(keras.Model(inputs, x), ratio=0.25)
    assert small.get_layer("hidden").units == 6
    assert name in [operation.name for operation in small.operations]


def test_a_constructor_that_takes_no_keywords():
    layer = Fixed(3.0)
    layer.name = "renamed"
    model = named(layer, frozen=True)
    small = kr.prune(model, ratio=0.25)
    assert small.get_layer("renamed").k == 3.0
    assert not small.get_layer("renamed").trainable
    models.assert_same_function(model, kr.prune(model, tau=1.0))


def test_why_a_layer_cannot_be_made_anew():
    class Renamed(layers.Dense):
        def get_config(self):
            return super().get_config() | {"other": 2.0}

    with pytest.raises(ValueError, match=r"keyword.*other") as info:
        kr.strip(named(Renamed(8)))
    assert "Its constructor has to take what get_config()" in str(info.value)


def test_a_metric_whose_constructor_takes_its_name_alone():
    class Total(keras.metrics.Metric):
        def __init__(self, name="total"):
            super().__init__(name=name)
            self.sum = self.add_weight(name="sum", initializer="zeros")

        def update_state(self, y, p, sample_weight=None):
            self.sum.assign_add(keras.ops.sum(p))

        def result(self):
            return self.sum + 0

    model = network(keras.Model)
    model.compile("sgd", "mse", metrics=[Total(name="all")], **STOCK)
    small = kr.prune(model, ratio=0.25)
    found = small.evaluate(*data(), verbose=0, return_dict=True)
    assert set(found) == {"loss", "all"}
