"""Training for low rank under all dtype policies."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.low_rank_models import factorized_layers, mlp, tied

LOW = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
POLICIES = (
    *LOW,
    pytest.param(
        "float64",
        marks=pytest.mark.skipif(
            keras.backend.backend() == "jax",
            reason="JAX has no float64 by default",
        ),
    ),
)


@pytest.fixture
def policy(request):
    """The policy of all layers that a test makes."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def rounding(policy):
    """How far a number of this policy is from the next one."""
    units = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
    return units.get(policy.removeprefix("mixed_"), 2.0**-23)


def predicted(model, x):
    return models.numpy(model(x, training=False)).astype("float64")


@pytest.mark.parametrize("policy", LOW)
def test_low_precision_keeps_the_indices(policy):
    layer = kr.FactorizedDense(600, dtype=policy)
    outputs = layer(keras.random.normal((3, 6)))
    dtype = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    index = models.numpy(layer.unit_index)
    np.testing.assert_array_equal(index, np.arange(600))


def test_inputs_may_be_integers():
    layer = kr.FactorizedDense(4, rows=2)
    x = np.arange(10).reshape(2, 5)
    found = models.numpy(layer(x))
    expected = x @ layer.effective_kernel()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def shared_by_many(policy, is_convolution):
    """Of a layer whose 200 inputs read 4 rows: outputs, and gradients of W."""
    options = {"rows": 4, "columns": 4, "dtype": policy}
    if is_convolution:
        layer, shape = kr.FactorizedConv2D(200, 2, **options), (3, 3, 200)
    else:
        layer, shape = kr.FactorizedDense(200, **options), (200,)
    model = keras.Sequential([keras.Input(shape, dtype="float32"), layer])
    rng = np.random.default_rng(0)
    for side in ("input", "unit"):
        scale = getattr(layer, f"{side}_scale")
        scale.assign(rng.uniform(0.5, 1.5, scale.shape))
    layer.kernel.assign(0.1 * rng.normal(size=layer.kernel.shape))
    x = rng.random((8, *shape)).astype("float32")
    state = [ops.convert_to_tensor(v) for v in model.non_trainable_variables]
    bias = ops.zeros((200,), layer.bias.dtype)
    outputs, _ = model.stateless_call([layer.kernel.value, bias], state, x)
    weights = ops.cast(rng.random(outputs.shape), "float32")

    def loss(kernel):
        outputs, _ = model.stateless_call([kernel, bias], state, x)
        return ops.sum(ops.cast(outputs, "float32") * weights) / 100

    kernel = ops.convert_to_tensor(layer.kernel.value)
    return [
        models.numpy(ops.cast(found, "float32"))
        for found in (outputs, models.gradient(loss, kernel))
    ]


@pytest.mark.parametrize("is_convolution", [False, True])
@pytest.mark.parametrize("policy", LOW)
def test_low_precision_adds_up_what_many_share(policy, is_convolution):
    """In bfloat16, one by one, a sum of 50 would be off by two of its units."""
    found = shared_by_many(policy, is_convolution)
    exact = shared_by_many("float32", is_convolution)
    # Where convolutions add up gradients in float16, that is not by this layer.
    for a, b, units in zip(found, exact, (1, 1.5), strict=True):
        bound = units * rounding(policy) * np.abs(b).max()
        assert np.abs(a - b).max() < bound


@pytest.mark.parametrize("policy", POLICIES, indirect=True)
def test_all_of_it_trains(policy, tmp_path):
    """Keras adds up penalties and losses, which have one dtype then."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            kr.FrobeniusNormalization(layers.Conv2D(6, 2, activation="relu")),
            layers.Flatten(),
            kr.NoiseOutputs(3, seed=0),
            layers.Dense(8, "relu"),
            layers.Dense(3, kernel_constraint=kr.FrobeniusNorm(2.0)),
        ]
    )
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 4, 4, 3)), rng.random((32, 3))
    wide = kr.factorize(kr.apply_rare(model, 5.0))
    near = 4 * rounding(policy)
    before = predicted(model, x)
    np.testing.assert_allclose(predicted(wide, x), before, atol=near)
    callback = kr.callbacks.DynamicLowRank(0.2, 2.0, every=1)
    # One of them compiled.
    eagerly = models.EAGERLY and policy != "mixed_bfloat16"
    wide.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=eagerly)
    wide.fit(x, y, epochs=2, verbose=0, callbacks=[callback])
    weights = [w.astype("float64") for w in wide.get_weights()]
    assert all(np.isfinite(w).all() for w in weights)
    convolution, *_ = factorized_layers(wide)
    assert convolution.sizes[0] == 3
    assert sum(np.prod(s) for s in callback.sizes[-1].values()) < 474
    after = predicted(wide, x)
    assert np.abs(after - before).max() > near
    size = np.abs(after).max()
    for small in (kr.to_dense(wide), kr.strip(wide), kr.compact(wide)):
        np.testing.assert_allclose(predicted(small, x), after, atol=near * size)
    wide.save(tmp_path / "wide.keras")
    loaded = keras.models.load_model(tmp_path / "wide.keras")
    np.testing.assert_array_equal(predicted(loaded, x), after)


@pytest.mark.parametrize("policy", POLICIES, indirect=True)
def test_plain_layers_are_regularized(policy):
    rare = kr.RaReRegularizer(2.0, also="l2")
    dense = layers.Dense(6, kernel_regularizer=rare)
    model = keras.Sequential([keras.Input((8,)), dense])
    model.compile("sgd", "mse")
    (penalty,) = model.losses
    assert keras.backend.standardize_dtype(penalty.dtype) == "float32"
    kernel = ops.cast(dense.kernel.value, "float32")
    np.testing.assert_allclose(
        models.number(penalty), models.number(rare(kernel)), rtol=1e-2
    )
    # All targets are met, so the gradient is that of the penalty alone.
    expected = models.numpy(kernel) - 0.01 * models.gradient(rare, kernel)
    model.fit(np.zeros((4, 8)), np.zeros((4, 6)), verbose=0)
    after = models.numpy(dense.kernel).astype("float32")
    atol = 1e-6 if policy.startswith("mixed") else rounding(policy)
    np.testing.assert_allclose(after, expected, atol=atol)


@pytest.mark.parametrize("policy", LOW)
def test_the_penalty_is_that_of_the_kernel_itself(policy):
    """Not of what a lower precision makes of it, where that is mixed in."""
    rare = kr.RaReRegularizer(2.0, tau_cos=0.0)
    layer = kr.FactorizedDense(6, kernel_regularizer=rare, dtype=policy)
    model = keras.Sequential([keras.Input((8,)), layer])
    kernel = models.numpy(layer.kernel).copy()
    kernel[:, 1] = kernel[:, 0] + 1e-3 * kernel[:, 2]
    layer.kernel.assign(kernel)
    for _ in range(2):
        model(np.ones((2, 8)), training=True)
    kernel = ops.convert_to_tensor(layer.kernel.value)
    np.testing.assert_allclose(
        models.number(sum(model.losses)), models.number(rare(kernel)), rtol=1e-5
    )


@pytest.mark.parametrize("policy", LOW)
def test_norms_are_kept(policy):
    """Also those that are rounded, and of weights whose squares are lost."""
    dense = layers.Dense(50, dtype=policy, use_bias=False)
    wrapper = kr.FrobeniusNormalization(dense, dtype=policy)
    model = keras.Sequential([keras.Input((40,)), wrapper])
    kernel = models.numpy(dense.kernel).astype("float32")
    norm = np.linalg.norm(kernel)
    np.testing.assert_allclose(float(wrapper.size), norm, rtol=1e-5)
    found = models.numpy(wrapper.effective_kernel()).astype("float32")
    np.testing.assert_allclose(found, kernel, rtol=1e-6)
    small = ops.cast(1e-5 * kernel / norm, dense.kernel.dtype)
    found = models.numpy(kr.FrobeniusNorm(3.0)(small)).astype("float32")
    rtol = 0.05 if policy == "float16" else 0.01
    np.testing.assert_allclose(np.linalg.norm(found), 3, rtol=rtol)
    assert len(model.weights) == 3


@pytest.mark.parametrize("policy", [*LOW, "float32"], indirect=True)
def test_compact_finds_what_was_joined(policy):
    """Rounded, what two units share is no more parallel to the last bit."""
    model = kr.factorize(mlp(24))
    two = model.get_layer("two")
    for side in ("unit", "input"):
        ratios = [(i, 0, -1 - 0.07 * i) for i in range(1, 14)]
        tied(two, side, ratios)
    two.fuse_parallel(1e-4, np.inf, to_square=False)
    assert two.sizes == (11, 11)
    small = kr.compact(model)
    assert small.get_layer("two").kernel.shape == (11, 11)
    x = np.random.default_rng(0).normal(size=(20, 8))
    expected = predicted(model, x)
    near = 2 * rounding(policy) * np.abs(expected).max()
    np.testing.assert_allclose(predicted(small, x), expected, atol=near)
