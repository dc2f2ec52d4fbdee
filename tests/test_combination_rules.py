"""Rules of operations that combine tensors, or the entries of one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras
from tests import models
from tests.rule_checks import assert_copies_go, prune

TENSORFLOW = keras.backend.backend() == "tensorflow"


def convolution(name, width=12, **options):
    options = {"padding": "same", "activation": "relu", **options}
    return layers.Conv2D(width, 3, name=name, **options)


def image_model(between, **options):
    """`between` takes an image of 5 x 5 positions and 12 channels."""
    inputs = keras.Input((5, 5, 4), **options)
    x = layers.Flatten()(between(convolution("a")(inputs)))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def pair_model(combine, **options):
    """`combine` takes two such images."""
    inputs = keras.Input((5, 5, 4), **options)
    x, y = convolution("a")(inputs), convolution("b")(inputs)
    x = layers.Flatten()(combine(x, y))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def assert_followed(model, tmp_path=None, frozen=(), **options):
    """Copies go, and no unit stays but those of the output and `frozen`.

    Returns:
        {names of the producers: units} of what can go.
    """
    graph = assert_copies_go(model, tmp_path, **options)
    stays = {s.name for s in graph.spaces if s.frozen and s.producers}
    assert stays == {"top", *frozen}
    return {
        "".join(sorted(layer.name for layer in s.producers)): s.size
        for s in graph.prunable
    }


# --- two tensors ------------------------------------------------------------

BOTH = {
    "Add": lambda x, y: layers.Add()([x, y]),
    "Average": lambda x, y: layers.Average()([x, y]),
    "Maximum": lambda x, y: layers.Maximum()([x, y]),
    "Minimum": lambda x, y: layers.Minimum()([x, y]),
    "Multiply": lambda x, y: layers.Multiply()([x, y]),
    "Subtract": lambda x, y: layers.Subtract()([x, y]),
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / (1 + y),
    "**": lambda x, y: (1 + x) ** y,
    ">": lambda x, y: ops.cast(x > y + 0.1, "float32") * y,
    "arctan2": lambda x, y: ops.arctan2(x, y + 0.1),
    "hypot": ops.hypot,
    "logaddexp": ops.logaddexp,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "divide_no_nan": lambda x, y: ops.divide_no_nan(x, y),
    "where": lambda x, y: ops.where(x > 0.5, x, y - 1),
    "where, channel by channel": lambda x, y: ops.where(x[:, :1] > 0.5, y, 1),
    "by keyword": lambda x, y: ops.add(x1=x, x2=y),
    "stack": lambda x, y: ops.stack([x, y], axis=2),
    "stack last": lambda x, y: ops.stack([x, y], axis=-1),
    "join positions": lambda x, y: layers.Concatenate(axis=1)([x, y]),
    "join columns": lambda x, y: ops.concatenate([x, y[:, :, :2]], axis=-2),
    "gated": lambda x, y: x * ops.sigmoid(ops.max(y, (1, 2), keepdims=True)),
}


@pytest.mark.parametrize("name", BOTH)
def test_two_tensors_of_the_same_channels(name, tmp_path):
    found = assert_followed(pair_model(BOTH[name]), tmp_path)
    assert found == {"ab": 12}


def thin(x, name="thin", **options):
    return layers.Conv2D(1, 1, name=name, **options)(x)


def vector(x, width=12, name="v"):
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(width, activation="sigmoid", name=name)(x)


def squeeze_and_excite(x, y):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(6, 1, activation="relu", name="s")(y)
    y = layers.Conv2D(12, 1, activation="sigmoid", name="e")(y)
    return layers.Multiply()([x, y])


def squeeze_and_excite_with_ops(x, y):
    y = ops.mean(x, axis=(1, 2))
    y = ops.relu(layers.Dense(6, name="s")(y))
    y = ops.sigmoid(layers.Dense(12, name="e")(y))
    return x * y[:, None, None, :]


def position_weights(x, y):
    """A weight for each of the 5 rows: they are no channels of `x`."""
    rows = ops.softmax(layers.Dense(5, name="rows")(vector(y)), axis=-1)
    return x * ops.expand_dims(rows, (-1, -2))


BROADCAST = {
    "one channel": (
        lambda x, y: layers.Add()([x, thin(y)]),
        {"a": 12, "b": 12, "thin": 1},
    ),
    "one channel, ops": (
        lambda x, y: ops.sigmoid(thin(y)) * x,
        {"a": 12, "b": 12, "thin": 1},
    ),
    "one channel on both sides": (
        lambda x, y: thin(x, "t") + thin(y, "u"),
        {"a": 12, "b": 12, "tu": 1},
    ),
    "one channel of one position": (
        lambda x, y: x * vector(y, 1)[:, None, None],
        {"a": 12, "b": 12, "v": 1},
    ),
    "vectors": (
        lambda x, y: x * layers.Reshape((1, 1, 12))(vector(y)),
        {"av": 12, "b": 12},
    ),
    "vectors, fewer axes": (
        lambda x, y: layers.Multiply()([x, vector(y)]),
        {"av": 12, "b": 12},
    ),
    "vectors against sequences": (
        lambda x, y: layers.Add()([vector(y), layers.Reshape((25, 12))(x)]),
        {"av": 12, "b": 12},
    ),
    "rows against columns": (
        lambda x, y: x[:, :, :1] * y[:, 1:2],
        {"ab": 12},
    ),
    "squeeze and excite": (squeeze_and_excite, {"ae": 12, "s": 6}),
    "squeeze and excite, ops": (
        squeeze_and_excite_with_ops,
        {"ae": 12, "s": 6},
    ),
    "weights of positions": (position_weights, {"a": 12, "b": 12, "v": 12}),
    "outer product": (
        lambda x, y: vector(x, 5, "rows")[..., None] * vector(y)[:, None],
        {"a": 12, "b": 12, "v": 12},
    ),
    "channels in front": (
        lambda x, y: (
            layers.Permute((3, 1, 2))(x) * layers.Reshape((12, 1, 1))(vector(y))
        ),
        {"av": 12, "b": 12},
    ),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_broadcasting(name, tmp_path):
    combine, expected = BROADCAST[name]
    model = pair_model(combine)
    frozen = {"rows"} & {layer.name for layer in model.layers}
    assert assert_followed(model, tmp_path, frozen) == expected


def test_positions_that_meet_channels_have_to_stay():
    spaces = kr.trace(pair_model(position_weights)).spaces
    (rows,) = (space for space in spaces if space.name == "rows")
    assert rows.frozen == (
        "multiply (Multiply) combines channels with the positions of another "
        "tensor"
    )


# --- numbers and arrays -----------------------------------------------------

NUMBERS = {
    "+": lambda x: x + 1,
    "1 +": lambda x: 1.0 + x,
    "1 -": lambda x: 1 - x,
    "2 *": lambda x: 2 * x,
    "/ 3": lambda x: x / 3,
    "3 /": lambda x: 3 / (x + 1),
    "**": lambda x: x**2,
    "2 **": lambda x: 2**x,
    "maximum": lambda x: ops.maximum(0.3, x),
    "where": lambda x: ops.where(x > 0.3, x, -1.0),
    "NumPy number": lambda x: x * np.float32(0.5),
    "tensor": lambda x: x * ops.convert_to_tensor(0.5),
    "by keyword": lambda x: ops.multiply(x1=2.0, x2=x),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_on_either_side(name, tmp_path):
    found = assert_followed(image_model(NUMBERS[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize(
    "scaled",
    [lambda x: 2 * x, lambda x: x / 3, lambda x: x * -1, lambda x: -x],
)
def test_parallel_filters_merge_through_a_number(scaled):
    model = models.randomized(image_model(scaled))
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([0]), np.array([5]), scale=2.5)
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("a").filters == 11
    models.assert_same_function(model, small)


@pytest.mark.parametrize("bent", [lambda x: 1 + x, lambda x: 1 / (x + 1)])
def test_parallel_filters_do_not_merge_scaled_where_numbers_bend(bent):
    """The consumers of both are summed as they are."""
    model = models.randomized(image_model(bent))
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([0]), np.array([5]), scale=2.5)
    small = kr.prune(model, tau=0.9999)
    old, new = (
        models.numpy(m.get_layer("top").kernel).reshape(25, -1, 3)
        for m in (model, small)
    )
    np.testing.assert_allclose(new[:, 0], old[:, 0] + old[:, 5], rtol=1e-5)


def array(*shape, dtype="float32"):
    values = np.random.default_rng(5).normal(size=shape)
    return (values > 0) if dtype == "bool" else values.astype(dtype)


ARRAYS = {
    "*": lambda x: x * array(12),
    "on the left": lambda x: ops.subtract(array(1, 1, 12), x),
    "positions and channels": lambda x: x + array(5, 5, 12),
    "positions alone": lambda x: x + array(5, 5, 1),
    "one entry": lambda x: x + array(1),
    "channels in front": (
        lambda x: layers.Permute((3, 1, 2))(x) * array(12, 1, 1)
    ),
    "double precision": (
        lambda x: ops.cast(ops.cast(x, "float64") * array(12), "float32")
    ),
    "condition": lambda x: ops.where(array(12, dtype="bool"), x, -x),
    "alternative": lambda x: ops.where(x > 0.4, x, array(12)),
    "both": lambda x: ops.where(x > 0.4, array(12), array(5, 12)),
    "by keyword": lambda x: ops.maximum(x1=array(12), x2=x),
    "twice": lambda x: x * array(12) + array(12),
    "two tensors": (
        lambda x: ops.where(array(12, dtype="bool"), x, ops.tanh(x))
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_cut_with_the_channels(name, tmp_path):
    if name == "double precision" and not TENSORFLOW:
        pytest.skip("JAX has float64 on request only")
    found = assert_followed(image_model(ARRAYS[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize("kind", ["tensor", "list"])
def test_tensors_and_lists_are_cut_with_the_channels(kind, tmp_path):
    """Units 0 to 5 are copied onto 6 to 11: the constant is alike for both."""
    if kind == "list" and not TENSORFLOW:
        pytest.skip("JAX takes no lists as operands")
    half = array(6, dtype="bool")
    chosen = np.concatenate([half, half])
    chosen = (
        chosen.tolist() if kind == "list" else ops.convert_to_tensor(chosen)
    )
    model = image_model(lambda x: ops.where(chosen, x, 1 - x))
    models.randomized(model)
    kernel = model.get_layer("a").kernel
    value = models.numpy(kernel)
    value[..., 6:] = value[..., :6]
    kernel.assign(value)
    model.get_layer("a").bias.assign(np.tile(array(6), 2))
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("a").filters == 6
    models.assert_same_function(model, small)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


def test_the_array_of_the_caller_is_not_changed():
    mine = array(12)
    before = mine.copy()
    model = models.randomized(image_model(lambda x: x * mine))
    small = kr.prune(model, tau=0.1)
    assert small.get_layer("a").filters < 12
    np.testing.assert_array_equal(mine, before)


@pytest.mark.parametrize("keep", ["medoid", "mean"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: x * a,
        lambda x, a: keras.ops.multiply(a, x),
        lambda x, a: x / a,
        lambda x, a: keras.ops.add(a, x / a),
        lambda x, a: layers.ReLU()(x * a - a),
    ],
)
def test_units_that_factors_alone_tell_apart_are_multiples(function, keep):
    """Of two with one filter, the one counts as often as its factor is."""
    factors = 1.5 + np.abs(array(12))
    model = models.randomized(image_model(lambda x: function(x, factors)))
    for variable in model.get_layer("a").weights:
        value = models.numpy(variable)
        value[..., 7] = value[..., 2]
        variable.assign(value)
    small = kr.prune(model, tau=0.9999, keep=keep, criterion="folded")
    models.assert_same_function(model, small)
    same = kr.prune(model, tau=1.0, keep=keep)
    models.assert_same_function(model, same)


def test_arrays_that_add_tell_units_apart():
    model = models.randomized(image_model(lambda x: x + array(12)))
    kernel = models.numpy(model.get_layer("a").kernel)
    kernel[..., 7] = kernel[..., 2]
    model.get_layer("a").kernel.assign(kernel)
    small = kr.prune(model, tau=1.0)
    assert small.get_layer("a").filters == 12


# --- joined channels --------------------------------------------------------


def padded_shortcut(x, y):
    """The shortcut of CIFAR ResNets: missing channels are zeros."""
    y = convolution("wide", 20)(y)
    x = layers.AveragePooling2D(1, 1)(x)
    return y + ops.pad(x, ((0, 0), (0, 0), (0, 0), (4, 4)))


def shuffled(x, groups, axis=-1):
    """The channels of the groups in turn: 0 4 8 1 5 9 ... for 3 groups."""
    *positions, channels = x.shape[1:]
    x = layers.Reshape((*positions, groups, channels // groups))(x)
    x = ops.swapaxes(x, -1, -2)
    return layers.Reshape((*positions, channels))(x)


def gated(x):
    x, gate = ops.split(x, 2, axis=-1)
    return x * ops.sigmoid(gate)


JOINED = {
    "channels": (
        lambda x, y: layers.Concatenate()([x, y]),
        {"a": 12, "b": 12},
    ),
    "twice": (
        lambda x, y: ops.concatenate([x, y, x], axis=-1),
        {"a": 12, "b": 12},
    ),
    "joined and added": (
        lambda x, y: ops.concatenate([x, y], -1) + convolution("c", 24)(x),
        {"ac": 12, "bc": 12},
    ),
    "part of both": (
        lambda x, y: ops.tanh(ops.concatenate([x, y], -1))[..., 6:-6],
        {"a": 6, "b": 6},
    ),
    "channels in front": (
        lambda x, y: layers.Concatenate(axis=1)(
            [layers.Permute((3, 1, 2))(x), ops.moveaxis(y, -1, 1)]
        ),
        {"a": 12, "b": 12},
    ),
    "stack of three": (
        lambda x, y: layers.Reshape((5, 5, 36))(ops.stack([x, y, x], -2)),
        {"ab": 12},
    ),
    "zeros": (padded_shortcut, None),
    "shuffle": (
        lambda x, y: shuffled(ops.concatenate([x, y], -1), 2),
        {"ab": 12},
    ),
    "shuffle in 3 groups": (lambda x, y: shuffled(x * y, 3), {"ab": 4}),
    "shuffled and grouped": (
        lambda x, y: layers.Conv2D(8, 3, groups=2, name="g")(
            shuffled(convolution("c", groups=2)(x + y), 2)
        ),
        None,
    ),
    "gate by hand": (lambda x, y: gated(x) + y[..., :6], None),
    "glu": (lambda x, y: ops.nn.glu(x * y, axis=-1), {"ab": 6}),
    "glu of positions": (
        lambda x, y: ops.nn.glu(ops.concatenate([x, y], 1), axis=1),
        {"ab": 12},
    ),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined_and_divided(name, tmp_path):
    combine, expected = JOINED[name]
    found = assert_followed(pair_model(combine), tmp_path)
    if expected is not None:
        assert found == expected


def test_channels_of_padding_go_with_those_that_they_are_added_to():
    model = models.randomized(pair_model(padded_shortcut))
    sizes = {
        frozenset(layer.name for layer in s.producers): s.size
        for s in kr.trace(model).prunable
        if s.size == 12
    }
    assert sizes == {frozenset({"a", "wide"}): 12, frozenset("b"): 12}
    small = kr.prune(model, tau=0.1, keep="random", seed=0)
    (pad,) = (
        call.operation.pad_width
        for call in _keras.calls(_keras.graph_of(small))
        if call.operation.name == "pad"
    )
    front, back = pad[-1]
    wide = small.get_layer("wide").filters
    assert front + small.get_layer("a").filters + back == wide < 20


# --- sums over positions and channels ---------------------------------------

POSITIONS = {
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean, kept": lambda x: ops.mean(x, axis=1, keepdims=True),
    "max": lambda x: ops.max(x, axis=1),
    "max from": lambda x: ops.max(x, axis=1, initial=0.3),
    "min": lambda x: ops.min(x, axis=(-2, -3)),
    "sum": lambda x: ops.sum(x, axis=2),
    "std": lambda x: ops.std(x, axis=1),
    "var": lambda x: ops.var(x, axis=[1, 2], keepdims=True),
    "prod": lambda x: ops.prod(1 + x, axis=1),
    "median": lambda x: ops.median(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=(1, 2)),
    "any": lambda x: ops.cast(ops.any(x > 1, axis=1), "float32"),
    "all": lambda x: ops.cast(ops.all(x > 0.1, axis=(1, 2)), "float32"),
    "count": lambda x: ops.cast(ops.count_nonzero(x, axis=1), "float32"),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "cumprod": lambda x: ops.cumprod(1 + x, axis=2),
    "sort": lambda x: ops.sort(x, axis=1),
    "in front": lambda x: ops.mean(ops.moveaxis(x, -1, 1), axis=(2, -1)),
    "pooled": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_over_positions(name, tmp_path):
    found = assert_followed(image_model(POSITIONS[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize("over", [ops.max, ops.min, ops.amax])
@pytest.mark.parametrize("kept", [True, False])
def test_the_largest_channel_is_the_same_without_copies(over, kept, tmp_path):
    def between(x, y):
        best = over(x, axis=-1, keepdims=kept)
        return y * (best if kept else ops.expand_dims(best, -1))

    found = assert_followed(pair_model(between), tmp_path)
    assert found == {"a": 12, "b": 12}


def channel_and_spatial_attention(x, y):
    """CBAM: weights of channels, then weights of positions."""
    first = layers.Dense(6, activation="relu", name="s")
    second = layers.Dense(12, name="e")
    pooled = [ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2))]
    x = x * ops.sigmoid(sum(second(first(p)) for p in pooled))[:, None, None]
    maps = [op(x, axis=-1, keepdims=True) for op in (ops.mean, ops.max)]
    maps = layers.Conv2D(1, 3, padding="same", name="m")(
        layers.Concatenate()(maps)
    )
    return x * ops.sigmoid(maps)


def without_mean(x, y):
    return x - ops.mean(x, axis=-1, keepdims=True)


INEXACT = {
    "sum": (lambda x, y: y * ops.sum(x, -1, keepdims=True), "reduces over"),
    "mean": (without_mean, "reduces over the channels"),
    "std": (lambda x, y: y + ops.std(x, -1)[..., None], "reduces over"),
    "attention to channels and positions": (
        channel_and_spatial_attention,
        "(Mean) reduces over the channels",
    ),
    "softmax": (lambda x, y: layers.Softmax()(x) * y, "(softmax)"),
    "ops.softmax": (lambda x, y: ops.softmax(x) * y, "over the channels"),
    "layer normalization": (
        lambda x, y: layers.LayerNormalization()(x + y),
        "its mean and variance",
    ),
    "scores": (
        lambda x, y: ops.einsum("bhwc,bhvc->bhwv", x, y),
        "multiplies channels of two tensors and sums them",
    ),
    "scores by matmul": (
        lambda x, y: ops.matmul(x, ops.swapaxes(y, -1, -2)),
        "multiplies channels of two tensors and sums them",
    ),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_is_computed_over_all_channels_goes_on_request(name):
    combine, reason = INEXACT[name]
    model = models.randomized(pair_model(combine))
    graph = kr.trace(model)
    stays = [s.frozen for s in graph.spaces if "a" in s.name.split(" + ")]
    assert all(reason in frozen for frozen in stays)
    allowed = kr.trace(model, allow_inexact=True).prunable
    (space,) = (s for s in allowed if "a" in s.name.split(" + "))
    assert reason in space.inexact
    options = {"allow_inexact": True, "keep": "random", "seed": 0}
    plan = kr.plan(model, tau=0.1, **options)
    small = plan.apply()
    assert small.get_layer("a").filters < 12
    assert small.count_params() == plan.parameters[1]
    (answer,) = models.outputs(small, models.random_inputs(model))
    assert np.isfinite(answer).all()


def test_softmax_over_positions_is_exact(tmp_path):
    def between(x, y):
        x = layers.Reshape((25, 12))(x)
        return ops.softmax(x, axis=1) * layers.Reshape((25, 12))(y)

    found = assert_followed(pair_model(between), tmp_path)
    assert found == {"ab": 12}


# --- products ---------------------------------------------------------------


def attention(heads):
    """Attention by hand: queries and keys stay, values are followed."""
    inputs = keras.Input((7, 10))

    def projected(name):
        x = layers.Dense(16, name=name)(inputs)
        x = layers.Reshape((7, heads, 16 // heads))(x)
        return ops.transpose(x, (0, 2, 1, 3))

    scores = ops.matmul(projected("q"), ops.swapaxes(projected("k"), -1, -2))
    weights = ops.softmax(scores / (16 // heads) ** 0.5)
    x = ops.transpose(ops.matmul(weights, projected("v")), (0, 2, 1, 3))
    x = layers.Dense(8, activation="relu", name="o")(layers.Reshape((7, 16))(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_by_hand(heads, tmp_path):
    model = attention(heads)
    scores = {"k + q", "q + k"} & {s.name for s in kr.trace(model).spaces}
    found = assert_followed(model, tmp_path, scores)
    assert found == {"v": 16 // heads, "o": 8}
    allowed = kr.trace(model, allow_inexact=True).prunable
    assert sum(s.name in scores for s in allowed) == 1


PRODUCTS = {
    "weights from positions": (
        lambda x, y: ops.einsum("bhwc,bhwk->bhkc", x, thin(y)),
        {"a": 12, "b": 12},
    ),
    "with ellipsis": (
        lambda x, y: ops.einsum("...c,...c->...c", x, y),
        {"ab": 12},
    ),
    "per channel": (
        lambda x, y: ops.einsum("bhwc,bhvc->bwvc", x, y),
        {"ab": 12},
    ),
    "of one tensor": (
        lambda x, y: ops.einsum("bhwc->bwc", x) + y[:, 1],
        {"ab": 12},
    ),
    "channels in front": (
        lambda x, y: ops.matmul(ops.moveaxis(x, -1, 1), ops.moveaxis(y, -1, 1)),
        {"ab": 12},
    ),
    "one channel in front": (
        lambda x, y: ops.matmul(
            ops.moveaxis(x, -1, 1), ops.moveaxis(thin(y), -1, 1)
        ),
        {"a": 12, "b": 12, "thin": 1},
    ),
    "of three": (
        lambda x, y: ops.einsum("bhwc,bhvc,bhvk->bwc", x, y, thin(y)),
        {"ab": 12},
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_tensors(name, tmp_path):
    combine, expected = PRODUCTS[name]
    model = pair_model(combine)
    made = {layer.name for layer in model.layers}
    frozen = {"thin"} & made - set(expected)
    assert assert_followed(model, tmp_path, frozen) == expected


def test_a_constant_matrix_is_read_like_a_kernel(tmp_path):
    matrix = array(12, 7)
    found = assert_followed(image_model(lambda x: x @ matrix), tmp_path)
    assert found == {"a": 12}


# --- what stays -------------------------------------------------------------


def scaled_by_gamma(x, layer, y):
    y = layer(y)
    return x * layer.gamma + y


def times_table(x, layer, y):
    y = layer(ops.argmax(y, axis=-1))
    return x @ layer.embeddings + y


STAYS = {
    "channels on other axes": (
        lambda x, y: (
            convolution("c", 5)(x) + ops.moveaxis(convolution("d", 5)(y), -1, 1)
        ),
        "combines tensors whose channels do not line up",
    ),
    "widened by an array": (
        lambda x, y: thin(x, "a1") * array(7) + ops.sum(y, -1)[..., None],
        "has an array operand with more entries than the channels",
    ),
    "an array is joined": (
        lambda x, y: ops.concatenate([x, array(4, 5, 5, 3)], -1),
        "joins channels with a constant array",
    ),
    "a variable": (
        lambda x, y: scaled_by_gamma(x, layers.BatchNormalization(), y),
        "gamma, a weight of another layer",
    ),
    "the kernel of a layer that is no Dense": (
        lambda x, y: times_table(x, layers.Embedding(12, 5), y),
        "embeddings, a weight of another layer",
    ),
    "all axes": (lambda x, y: x - ops.mean(x), "over the batch axis too"),
    "the batch": (lambda x, y: x - ops.mean(x, 0), "over the batch axis too"),
    "along channels": (lambda x, y: ops.cumsum(x, -1), "along the channels"),
    "scores and positions": (
        lambda x, y: ops.einsum(
            "bhwc,bhc->bhwc", x, y[:, :, 0, :1] * array(12)
        ),
        "more entries than the channels",
    ),
    "no arrow": (
        lambda x, y: ops.einsum("bhwc,bhwc", x, y)[None, None, None],
        'write subscripts with "->"',
    ),
    "Dot": (
        lambda x, y: layers.Dot(-1)(
            [layers.Reshape((25, 12))(x), layers.Reshape((25, 12))(y)]
        ),
        "multiplies channels of two tensors and sums them",
    ),
    "no operation of ours": (
        lambda x, y: ops.argmax(x, -1)[..., None] * y,
        "there is no rule for the operation argmax (Argmax)",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    """A reason in words, and a model that is not cut there."""
    combine, reason = STAYS[name]
    model = models.randomized(pair_model(combine, batch_size=4))
    reasons = [s.frozen for s in kr.trace(model).spaces if s.producers]
    assert any(reason in (frozen or "") for frozen in reasons)
    small = prune(model, 0.1)
    models.outputs(small, models.random_inputs(model))
