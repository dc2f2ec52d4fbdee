"""A copy is compiled as the model that it is made from."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.building.compiling import fresh_arguments


class Total(keras.metrics.Metric):
    """Takes a name and a factor, and tells neither in a config."""

    def __init__(self, name="total", factor=1.0):
        super().__init__(name=name)
        self.factor = factor
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y, prediction, sample_weight=None):
        self.total.assign_add(self.factor * keras.ops.sum(prediction))

    def result(self):
        return keras.ops.convert_to_tensor(self.total)


class Hidden(Total):
    """What its constructor takes cannot be known."""

    def __init__(self, how_many, name="hidden"):
        super().__init__(name=name)


class Closed(Total):
    """Takes no dtype, and has another one."""

    def __init__(self, name="closed"):
        keras.metrics.Metric.__init__(self, dtype="float64", name=name)
        self.factor = 1.0
        self.total = self.add_weight(name="total", initializer="zeros")


class Slow(keras.optimizers.SGD):
    """Takes fewer arguments than its config has."""

    def __init__(self, learning_rate=0.1, **kwargs):
        kwargs.pop("clipnorm", None)
        super().__init__(learning_rate, clipnorm=2.0, **kwargs)


def compiled(metric, optimizer="sgd"):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile(optimizer, "mse", metrics=[metric])
    return model


def data():
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return x, x[:, :3]


def test_a_metric_whose_constructor_takes_a_name_alone():
    metric = Total("sum", factor=3.0)
    found = kr.fit_and_prune(
        compiled(metric, Slow()),
        *data(),
        prune={"ratio": 0.2},
        epochs=2,
        monitor="loss",
        floor=99.0,
        verbose=0,
    )
    assert len(found.cuts) == 1
    (own,) = fresh_arguments(found.model)["metrics"]
    assert (type(own), own.name, own.factor) == (Total, "sum", 3.0)
    assert float(metric.result()) == 0
    _, value = found.model.evaluate(*data(), verbose=0)
    total = found.model.predict(data()[0], verbose=0).sum()
    assert value == pytest.approx(3 * total, rel=1e-4)


def test_its_dtype_is_kept():
    (own,) = fresh_arguments(compiled(Closed()))["metrics"]
    assert own.dtype == "float64"


def test_a_metric_that_cannot_be_made_anew():
    model = compiled(Hidden(3))
    with pytest.raises(
        ValueError,
        match=r"(?s)No copy of .* compiled as it is: the Hidden that.*how_many"
        r".*Add a get_config\(\) to that class",
    ):
        kr.fit_and_prune(
            model, *data(), prune={"ratio": 0.2}, epochs=1, monitor="loss"
        )
    with pytest.warns(UserWarning, match="not compiled, because the Hidden"):
        small = kr.prune(model, ratio=0.5)
    assert not small.compiled


class Boosted(keras.optimizers.SGD):
    """Takes an argument that its config does not have."""

    def __init__(self, learning_rate=0.1, boost=1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.boost = boost


def test_an_optimizer_without_a_config():
    model = compiled("mae", Boosted(0.2, boost=3.0))
    for optimizer in (False, True):
        small = kr.prune(model, ratio=0.5, optimizer=optimizer)
        assert type(small.optimizer) is Boosted
        assert small.optimizer.boost == 3.0
        assert float(small.optimizer.learning_rate) == pytest.approx(0.2)


@pytest.mark.parametrize("goes_on", [False, True])
def test_what_is_not_decayed_is_not_decayed_in_a_copy(goes_on):
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    model = compiled("mae", optimizer)
    last = model.layers[1]
    optimizer.exclude_from_weight_decay([last.kernel], ["bias"])
    if goes_on:
        model.fit(*data(), verbose=0)
    small = kr.prune(model, ratio=0.5, optimizer=goes_on)
    decayed = [
        small.optimizer._use_weight_decay(x) for x in small.trainable_variables
    ]
    assert decayed == [True, False, False, False]


@pytest.mark.parametrize("scales", [False, True])
def test_a_dtype_policy_and_its_loss_scale(scales):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled("mae")
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("sgd", "mse", auto_scale_loss=scales)
    small = kr.prune(model, ratio=0.5)
    assert small.dtype_policy.name == "mixed_float16"
    is_scaled = isinstance(small.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == scales


def test_flags_that_were_set_later():
    model = compiled("mae")
    model.run_eagerly = True
    model.layers[0].autocast = False
    small = kr.prune(model, ratio=0.5)
    assert small.run_eagerly
    assert [x.autocast for x in small.layers] == [False, True]


class Clipped(keras.constraints.Constraint):
    """Without a config."""

    def __init__(self, largest=9.0):
        self.largest = largest

    def __call__(self, w):
        return keras.ops.clip(w, -self.largest, self.largest)


class Sum(keras.regularizers.Regularizer):
    """Without a config that has its argument."""

    def __init__(self, strength=1.0):
        self.strength = strength

    def __call__(self, w):
        return self.strength * keras.ops.sum(w)

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "change", [lambda x: kr.prune(x, ratio=0.5), kr.factorize]
)
def test_constraints_and_regularizers_without_a_config(change):
    first = layers.Dense(
        8,
        kernel_constraint=Clipped(0.5),
        kernel_regularizer=Sum(3.0),
        activity_regularizer=Sum(2.0),
    )
    model = keras.Sequential([keras.Input((6,)), first, layers.Dense(3)])
    layer = change(model).layers[0]
    for penalties in (first, layer):
        assert penalties.kernel.constraint.largest == 0.5
        assert penalties.kernel_constraint.largest == 0.5
        assert penalties.kernel.regularizer.strength == 3.0
        assert penalties.activity_regularizer.strength == 2.0


@keras.saving.register_keras_serializable(__name__)
class ForTraining(keras.regularizers.L2):
    """Its stock form is that of Keras."""


kr.register_stock_form(ForTraining, lambda own: keras.regularizers.L2(0.5))


def test_what_a_stock_form_replaces_stays_replaced():
    first = layers.Dense(8, kernel_regularizer=ForTraining(0.1))
    model = keras.Sequential([keras.Input((6,)), first, layers.Dense(3)])
    kernel = kr.strip(model).layers[0].kernel
    assert type(kernel.regularizer) is keras.regularizers.L2
