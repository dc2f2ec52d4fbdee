"""Variables that are read by more than the layer that has them."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.building.rebinding import Rebinder
from tests import models

TENSORFLOW = keras.backend.backend() == "tensorflow"


def tied_model(decode, width=6):
    """`decode(h, encoder, norm)` reads a variable of one of two layers."""
    inputs = keras.Input((6,))
    encoder = layers.Dense(width, name="encoder")
    norm = layers.BatchNormalization(name="norm")
    x = norm(encoder(inputs))
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    x = decode(layers.Dense(6, name="code")(x), encoder, norm)
    model = keras.Model(inputs, layers.Dense(3, name="top")(x))
    return models.randomized(model)


ENCODER = None  # What a function can name as a global.


def read_global(x):
    return ops.matmul(x, ENCODER.kernel)


def through_global(x, encoder, function):
    global ENCODER
    ENCODER = encoder
    return layers.Lambda(function)(x)


def times(x, kernel):
    return ops.matmul(x, kernel)


class Times(layers.Layer):
    def call(self, x, kernel):
        return ops.matmul(x, kernel)


OPERATIONS = {
    "matmul": lambda h, e, n: ops.matmul(h, e.kernel),
    "by keyword": lambda h, e, n: ops.matmul(x1=h, x2=e.kernel),
    "einsum": lambda h, e, n: ops.einsum("bu,iu->bi", h, e.kernel),
    "times gamma": lambda h, e, n: h * n.gamma,
    "plus a bias": lambda h, e, n: ops.add(e.bias, h),
    "minus beta": lambda h, e, n: ops.subtract(h, n.beta),
    "take": lambda h, e, n: ops.take(e.kernel, ops.argmax(h, -1), axis=0),
    "a list": lambda h, e, n: ops.einsum("bu,iu,u->bi", h, e.kernel, n.beta),
    "a layer": lambda h, e, n: Times()(h, kernel=e.kernel),
}
FUNCTIONS = {
    "closure": lambda h, e, n: layers.Lambda(lambda x: x @ e.kernel)(h),
    "default": lambda h, e, n: layers.Lambda(lambda x, k=e.kernel: x @ k)(h),
    "global": lambda h, e, n: through_global(h, e, lambda x: read_global(x)),
    "arguments": lambda h, e, n: layers.Lambda(
        times, arguments={"kernel": e.kernel}
    )(h),
    "layer in arguments": lambda h, e, n: layers.Lambda(
        lambda x, layer: layer(x), arguments={"layer": e}
    )(h),
    "partial": lambda h, e, n: layers.Lambda(
        functools.partial(times, kernel=e.kernel)
    )(h),
    "method": lambda h, e, n: layers.Lambda(e.call)(h),
    "in a list": lambda h, e, n: in_a_list(h, [e.kernel]),
    "activation": lambda h, e, n: layers.Dense(6, scaled(n))(h),
    "wrapped": lambda h, e, n: layers.TimeDistributed(
        layers.Lambda(lambda x: x @ e.kernel)
    )(layers.Reshape((1, 6))(h)),
    "nested": lambda h, e, n: keras.Sequential(
        [layers.Lambda(lambda x: x @ e.kernel)]
    )(h),
}


def in_a_list(x, kernels):
    return layers.Lambda(lambda x: x @ kernels[0])(x)


def scaled(norm):
    def by_gamma(x):
        return x * norm.gamma

    return by_gamma


def move(model):
    """Give all variables other values."""
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.uniform(0.1, 1, variable.shape))


def assert_independent(model, other):
    """Each answers as before when the weights of the other one move."""
    data = models.random_inputs(model)
    for one, moved in ((model, other), (other, model)):
        before = models.outputs(one, data)
        move(moved)
        for x, y in zip(before, models.outputs(one, data), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", OPERATIONS | FUNCTIONS)
def test_a_copy_reads_variables_of_its_own(name):
    model = tied_model((OPERATIONS | FUNCTIONS)[name])
    same = kr.prune(model, tau=1.0)
    assert same.count_params() == model.count_params()
    models.assert_same_function(model, same, tolerance=0)
    small = kr.prune(same, ratio=0.3)
    assert small.get_layer("hidden").units == 12
    assert_independent(model, same)
    assert_independent(same, small)
    # As tied as before: the layer's variables are those that it reads.
    data = models.random_inputs(small)
    is_norm = name in ("times gamma", "minus beta", "activation")
    layer = small.get_layer("norm" if is_norm else "encoder")
    hidden = small.get_layer("hidden")
    hidden.kernel.assign(0 * models.numpy(hidden.kernel))
    fixed = models.outputs(small, data)
    layer.set_weights([x + 0.5 for x in layer.get_weights()])
    assert not np.allclose(fixed, models.outputs(small, data))


def test_the_copy_of_a_tied_kernel_is_trained_by_both_readers():
    model = tied_model(OPERATIONS["matmul"])
    small = kr.prune(model, ratio=0.3, layers="hidden")
    call = next(
        call
        for call in _keras.calls(_keras.graph_of(small))
        if call.operation.name.startswith("matmul")
    )
    assert call.arguments[0][1] is small.get_layer("encoder").kernel
    optimizer = keras.optimizers.SGD(0.1)
    small.compile(optimizer, "mse", run_eagerly=models.EAGERLY)
    data = models.random_inputs(model, batch=32)
    kernel = models.numpy(model.get_layer("encoder").kernel)
    small.fit(data, data[:, :3], verbose=0)
    trained = models.numpy(small.get_layer("encoder").kernel)
    assert np.abs(trained - kernel).max() > 1e-4
    np.testing.assert_array_equal(
        models.numpy(model.get_layer("encoder").kernel), kernel
    )


def wide_model():
    """A kernel that writes units twice, once for each reader of theirs."""
    return tied_model(
        lambda h, e, n: ops.relu(ops.matmul(h, e.kernel)), width=9
    )


def test_units_of_a_tied_kernel_go_from_both_places():
    model = wide_model()
    graph = kr.trace(model)
    assert "encoder" in [space.name for space in graph.prunable]
    models.plant(model)
    plan = kr.plan(model, tau=0.9999)
    assert models.widths(plan)["encoder"] == (7, 2)
    small = plan.apply()
    assert small.get_layer("encoder").kernel.shape == (6, 7)
    assert small.get_layer("top").kernel.shape == (7, 3)
    models.assert_same_function(model, small)
    assert small.count_params() == plan.parameters[1]
    assert kr.flops(small) == plan.flops[1]


def test_what_a_tied_kernel_reads_stays():
    code = next(
        space
        for space in kr.trace(wide_model()).spaces
        if "code" in [layer.name for layer in space.producers]
    )
    assert code.frozen


def test_a_tied_kernel_is_not_fitted_to_one_of_its_readers():
    model = wide_model()
    data = models.random_inputs(model, batch=64)
    small = kr.prune(model, ratio=0.3, data=data, rounds=1)
    old, new = (
        models.numpy(x.get_layer("encoder").kernel).T for x in (model, small)
    )
    assert len(new) < len(old)
    for column in new:
        assert np.abs(old - column).max(axis=1).min() == 0


def test_a_variable_that_is_read_before_its_layer_is_called():
    inputs = keras.Input((6,))
    late = layers.Dense(5, name="late")
    late.build((None, 6))
    x = layers.Dense(7)(ops.relu(ops.matmul(inputs, late.kernel)))
    inner_inputs = keras.Input((5,))
    read = ops.einsum("bu,iu->bi", layers.Dense(5)(inner_inputs), late.kernel)
    inner = keras.Model(inner_inputs, read, name="inner")
    x = layers.Dense(2)(inner(late(layers.Dense(6)(x))))
    model = models.randomized(keras.Model(inputs, x))
    same = kr.strip(model)
    models.assert_same_function(model, same, tolerance=0)
    assert_independent(model, kr.prune(model, ratio=0.3))
    assert_independent(model, same)


@pytest.mark.parametrize(
    "function",
    [
        kr.strip,
        kr.compact,
        kr.apply_rare,
        functools.partial(kr.factorize, layers="hidden"),
        functools.partial(kr.prune, tau=1.0, optimizer=True),
    ],
    ids=["strip", "compact", "apply_rare", "factorize", "prune"],
)
def test_every_copy_is_tied(function):
    model = tied_model(FUNCTIONS["closure"])
    model.compile("adam", "mse", run_eagerly=models.EAGERLY)
    copy = function(model)
    models.assert_same_function(model, copy)
    assert_independent(model, copy)


def test_a_loss_that_refers_to_a_layer():
    model = tied_model(OPERATIONS["matmul"])
    encoder = model.get_layer("encoder")

    def loss(y, p):
        return 0 * ops.mean(p) + ops.sum(ops.square(encoder.kernel))

    model.compile("sgd", loss)
    small = kr.prune(model, ratio=0.3)
    kernel = small.get_layer("encoder").kernel
    kernel.assign(np.ones(kernel.shape))
    data = models.random_inputs(model)
    found = small.evaluate(data, data[:, :3], verbose=0)
    assert found == pytest.approx(kernel.shape[0] * kernel.shape[1])
    assert model.loss is loss


def test_a_regularizer_that_refers_to_a_layer():
    inputs = keras.Input((6,))
    first = layers.Dense(6, name="first")
    x = layers.Dense(
        6,
        name="second",
        kernel_regularizer=lambda w: ops.sum(ops.square(w - first.kernel)),
    )(first(inputs))
    x = layers.Dense(9, activation="relu", name="hidden")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    small = kr.prune(model, ratio=0.3, layers="hidden")
    kernel = small.get_layer("second").kernel
    kernel.assign(small.get_layer("first").kernel)
    first.kernel.assign(np.ones((6, 6)))
    assert float(small.losses[0]) == 0
    assert models.number(model.losses[0]) > 0


# --- what cannot be followed ------------------------------------------------


class Holder:
    def __init__(self, layer):
        self.layer = layer


class ReadsGlobal(layers.Layer):
    def call(self, x):
        return read_global(x)


def held(x, encoder):
    holder = Holder(encoder)
    return layers.Lambda(lambda x: x @ holder.layer.kernel)(x)


def read_in_call(x, encoder):
    global ENCODER
    ENCODER = encoder
    return ReadsGlobal()(x)


def of_no_layer(x, in_lambda):
    free = keras.Variable(np.ones(6, "float32"))
    return layers.Lambda(lambda x: x * free)(x) if in_lambda else x * free


REFUSED = {
    "held by an object": (
        lambda h, e, n: held(h, e),
        "of the layer 'encoder' somewhere in its Python code",
    ),
    "read by the code of a layer": (
        lambda h, e, n: read_in_call(h, e),
        "of the layer 'encoder' somewhere in its Python code",
    ),
    "of no layer": (
        lambda h, e, n: of_no_layer(h, in_lambda=False),
        "no weight of a layer of the model.*add_weight",
    ),
    "of no layer, in a Lambda": (
        lambda h, e, n: of_no_layer(h, in_lambda=True),
        "no weight of a layer of the model.*add_weight",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    decode, message = REFUSED[name]
    model = tied_model(decode)
    for function in (kr.strip, functools.partial(kr.plan, tau=1.0)):
        with pytest.raises(ValueError, match=message):
            function(model)


@pytest.mark.skipif(not TENSORFLOW, reason="on JAX it is a plain array")
def test_a_variable_of_the_backend_is_refused():
    model = tied_model(lambda h, e, n: ops.matmul(h, e.kernel.value))
    with pytest.raises(ValueError, match=r"layer\.kernel in place of"):
        kr.prune(model, tau=1.0)


@pytest.mark.parametrize("name", ["matmul", "closure"])
def test_a_layer_that_becomes_one_of_another_class(name):
    model = tied_model((OPERATIONS | FUNCTIONS)[name], width=9)
    remedy = r"becomes one of another class.*layer.name != 'encoder'"
    with pytest.raises(ValueError, match=remedy):
        kr.factorize(model)
    found = kr.factorize(model, layers=lambda layer: layer.name != "encoder")
    models.assert_same_function(model, found, tolerance=1e-5)


def test_a_variable_of_no_layer_freezes_what_meets_it():
    graph = kr.trace(tied_model(REFUSED["of no layer"][0]))
    reasons = [space.frozen for space in graph.spaces if space.frozen]
    assert any("make it one in a layer of your own" in x for x in reasons)


def test_random_states_are_no_weights():
    seed = keras.random.SeedGenerator(1)
    model = tied_model(
        lambda h, e, n: layers.Lambda(
            lambda x: x + keras.random.normal((6,), 0, 1e-9, seed=seed)
        )(h)
    )
    models.assert_same_function(model, kr.prune(model, tau=1.0))


def test_running_code_to_see_what_it_reads_leaves_no_losses():
    class Penalised(layers.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return x

    model = tied_model(lambda h, e, n: Penalised()(h))
    kr.prune(model, tau=1.0)
    assert not model.losses


# --- functions made anew ----------------------------------------------------


def test_a_function_that_refers_to_no_twin_stays_the_same():
    def outer():
        return [outer, np.ones(3)]

    assert Rebinder({id(object()): 1}).rebound(outer) is outer


def test_functions_that_refer_to_each_other():
    old, new = [1], [2]

    def even(n):
        return old if n == 0 else odd(n - 1)

    def odd(n):
        return [0] if n == 0 else even(n - 1)

    made = Rebinder({id(old): new}).rebound(even)
    assert made(4) is new
    assert even(4) is old
    assert made.__name__ == "even"


def test_what_a_rebound_function_keeps():
    old, new = [1], [2]

    def function(x, y=old, *, z=None):
        """Says what it does."""
        return x, y, z, late

    function.note = "kept"
    made = Rebinder({id(old): new}).rebound(function)
    late = 3  # The closure's cell was empty until now.
    assert function(0) == (0, old, None, 3)
    assert made.__doc__ == function.__doc__
    assert made.note == "kept"
    assert made.__defaults__ == (new,)
    assert made.__kwdefaults__ == {"z": None}
