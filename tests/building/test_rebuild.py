"""What a smaller model keeps of the one that it was made from."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

# Keras takes one step at a time on PyTorch.
STEPS = 1 if keras.backend.backend() == "torch" else 2


def test_the_file_opens_and_trains_where_this_package_is_absent(
    stock_keras, tmp_path
):
    model = models.randomized(models.residual())
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    stock_keras.opens_and_trains(small, models.random_inputs(model), tmp_path)


def test_frozen_layers_stay_frozen():
    model = models.residual()
    model.get_layer("conv1a").trainable = False
    model.get_layer("bn1a").trainable = False
    small = kr.prune(model, tau=0.1)
    flags = [layer.trainable for layer in small.layers]
    assert flags == [layer.trainable for layer in model.layers]
    assert len(small.trainable_weights) == len(model.trainable_weights)


def test_a_frozen_model_is_pruned_all_the_same():
    model = models.randomized(models.nested())
    models.plant(model)
    model.trainable = False
    model.get_layer("inner").layers[1].trainable = True
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    assert not small.trainable
    assert [w.name for w in small.trainable_weights] == [
        w.name for w in model.trainable_weights
    ]
    models.assert_same_function(model, small)


def test_dropout_is_active_in_training_after_rebuild_and_reload(tmp_path):
    model = models.randomized(models.vgg())
    small = kr.prune(model, tau=0.1)
    small.save(tmp_path / "small.keras")
    data = models.random_inputs(model)
    for candidate in (small, keras.models.load_model(tmp_path / "small.keras")):
        calm = [models.numpy(candidate(data, training=False)) for _ in "ab"]
        wild = [models.numpy(candidate(data, training=True)) for _ in "ab"]
        assert np.array_equal(*calm)
        assert not np.allclose(*wild)


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", "mixed_float16", "float64", "bfloat16"]
)
def test_dtype_policies_survive(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where it is switched on")
    with_policy = [
        keras.Input((12,)),
        layers.Dense(16, activation="relu", dtype=policy),
        layers.Dense(8, dtype=policy),
        layers.Dense(2, dtype="float32"),
    ]
    model = models.randomized(keras.Sequential(with_policy))
    models.plant(model)
    small = kr.prune(model, tau=0.999)
    assert small.layers[0].units == 12
    for old, new in zip(model.layers, small.layers, strict=True):
        assert new.dtype_policy.name == old.dtype_policy.name
    for old, new in zip(model.weights, small.weights, strict=True):
        assert new.dtype == old.dtype
    models.assert_same_function(model, small, tolerance=2e-2)


def own_activation(x):
    return keras.ops.relu(x) + 0.1


def test_an_activation_that_is_not_registered():
    inputs = keras.Input((6,))
    x = layers.Dense(7, activation=own_activation, name="own")(inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    own = small.get_layer("own")
    assert own.activation is own_activation
    assert own.units == 5
    models.assert_same_function(model, small)


def test_a_lambda_keeps_its_function():
    inputs = keras.Input((6,))
    x = layers.Dense(7, name="before")(inputs)
    x = layers.Lambda(lambda t, c: t * c, arguments={"c": 3.0}, name="by3")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    plan = kr.plan(model, tau=0.1)
    reasons = [entry.reason for entry in plan.explain().frozen]
    assert any("by3 (Lambda) runs a Python function" in x for x in reasons)
    models.assert_same_function(model, plan.apply(), tolerance=0)


def test_regularizers_constraints_and_initializers_survive():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(
                9,
                kernel_regularizer=keras.regularizers.L2(0.25),
                kernel_constraint=keras.constraints.MaxNorm(3),
                kernel_initializer=keras.initializers.HeNormal(seed=4),
            ),
            layers.Dense(2),
        ]
    )
    small = kr.prune(model, tau=0.1)
    old, new = model.layers[0].get_config(), small.layers[0].get_config()
    assert new.pop("units") < old.pop("units")
    assert new == old
    assert len(small.losses) == 1


def test_a_compiled_model_is_compiled_again():
    model = models.mlp()
    rate = keras.optimizers.schedules.CosineDecay(0.1, 50)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.5),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.2),
        metrics=["accuracy", keras.metrics.TopKCategoricalAccuracy(2)],
        steps_per_execution=STEPS,
    )
    small = kr.prune(model, tau=0.2)
    assert small.optimizer is not model.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert small.loss.label_smoothing == 0.2
    assert small.steps_per_execution == STEPS
    data = np.zeros((8, 12), "float32")
    history = small.fit(data, np.eye(3, dtype="float32")[[0] * 8], verbose=0)
    assert set(history.history) == {
        "loss",
        "accuracy",
        "top_k_categorical_accuracy",
    }
    assert model.optimizer.iterations == 0


def test_a_loss_function_of_the_users_own_is_kept():
    def loss(y, p):
        return keras.ops.mean(keras.ops.square(y - p))

    model = models.mlp()
    model.compile("sgd", loss)
    assert kr.prune(model, tau=0.2).loss is loss


def test_a_model_that_was_not_compiled_stays_so():
    assert not kr.prune(models.mlp(), tau=0.2).compiled


def test_an_overridden_compile_is_not_called():
    class Own(keras.Model):
        def compile(self, optimizer, strength):
            super().compile(optimizer, "mse")

    inputs = keras.Input((4,))
    model = Own(inputs, layers.Dense(2)(layers.Dense(5)(inputs)))
    model.compile("sgd", strength=3)
    with pytest.warns(UserWarning, match="compile"):
        small = kr.prune(model, tau=0.5)
    assert not small.compiled


def test_a_layer_whose_config_hides_its_width():
    @keras.saving.register_keras_serializable(__name__)
    class Wide(layers.Dense):
        """Takes twice the units that its config tells."""

        def __init__(self, units, **options):
            super().__init__(2 * units, **options)

        def get_config(self):
            return super().get_config() | {"units": self.units // 2}

    inputs = keras.Input((4,))
    x = Wide(4, name="wide")(inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    with pytest.raises(ValueError, match=r"'wide'.*skip="):
        kr.prune(model, tau=0.3)
    same = kr.prune(model, tau=0.3, skip="wide")
    models.assert_same_function(model, same, tolerance=0)


def test_inputs_keep_their_names_and_structure():
    model = models.two_heads()
    small = kr.prune(model, tau=0.2)
    assert set(small.input) == {"a"}
    assert set(small.output) == {"mask", "classes"}
    model = models.shared()
    small = kr.prune(model, tau=0.2)
    assert [x.name for x in small.inputs] == [x.name for x in model.inputs]


def test_masks_are_kept():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    x = layers.LSTM(4)(x)
    x = layers.Dense(8, activation="relu")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    data = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]])
    models.assert_same_function(model, small, data)


def test_an_adapted_normalization_is_kept():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (50, 6)))
    model = keras.Sequential(
        [keras.Input((6,)), normalization, layers.Dense(8), layers.Dense(2)]
    )
    models.plant(model)
    models.assert_same_function(model, kr.prune(model, tau=0.9999))


def test_the_smaller_model_exports(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a SavedModel is TensorFlow's")
    import tensorflow as tf

    model = models.randomized(models.vgg())
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    small.export(tmp_path / "saved", verbose=False)
    data = models.random_inputs(model)
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(
        served.serve(data).numpy(), models.outputs(small, data)[0], atol=1e-5
    )


@keras.saving.register_keras_serializable(__name__)
class Gate(layers.Layer):
    """Returns `width` channels, whatever it reads."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width

    def call(self, x):
        ones = keras.ops.ones((1, self.width))
        return keras.ops.mean(x, -1, keepdims=True) * ones

    def get_config(self):
        return super().get_config() | {"width": self.width}


def gated(cls, **options):
    """A model with a layer whose rule is wrong, and a ReLU behind it."""
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="before")(inputs)
    x = layers.ReLU()(cls(8, name="gate", **options)(x))
    return models.randomized(
        keras.Model(inputs, layers.Dense(2, name="after")(x))
    )


def test_a_rule_that_is_wrong_about_what_comes_out_is_named():
    """The layer behind cannot take the weights; the rule is at fault."""

    class Fixed(Gate):
        pass

    @kr.register_rule(Fixed)
    def forgets_the_width(layer, call):
        return call.inputs[0]

    blamed = r"'gate' \(Fixed\).*forgets_the_width\) is wrong.*'gate' out"
    with pytest.raises(ValueError, match=f"'after/kernel'.*{blamed}"):
        kr.prune(gated(Fixed), ratio=0.5)
    # An addition behind it cannot even be called.
    inputs = keras.Input((4,))
    x = layers.Dense(8)(inputs)
    x = layers.Add(name="sum")([x, Fixed(8, name="gate")(x)])
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match=f"(?s)'sum'.*called.*{blamed}"):
        kr.prune(models.randomized(model), ratio=0.5)


def test_a_setting_that_a_rule_changes_is_named():
    """Its own config makes the layer; with the rule's setting, it fails."""

    class Even(Gate):
        def __init__(self, width, **options):
            super().__init__(width, **options)
            if width % 2:
                raise ValueError(f"width has to be even, not {width}.")

    @kr.register_rule(Even)
    def any_width(layer, call):
        call.counted_in("width", ids=call.inputs[0].ids)
        return call.inputs[0]

    message = (
        r"'gate' \(Even\) can be rebuilt.*not with width=5: width has to be "
        r"even.*any_width\)"
    )
    with pytest.raises(ValueError, match=message):
        kr.prune(gated(Even), ratio=0.375)


def test_a_layer_whose_config_is_at_fault_is_not_blamed_on_its_rule():
    class Picky(Gate):
        def __init__(self, width, name):
            super().__init__(width, name=name)

        def get_config(self):
            return {"name": self.name, "size": self.width}

    kr.register_rule(Picky, lambda layer, call: call.inputs[0])
    message = r"'gate' \(Picky\) cannot be rebuilt from its get_config\(\)"
    with pytest.raises(ValueError, match=message):
        kr.prune(gated(Picky), ratio=0.5)
