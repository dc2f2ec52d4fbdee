"""Small models for the tests, and what is done to their weights."""

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.channels import Role, labels
from keras_redundancy.channels.labels import Constant

# Whether `jit_compile=True` is XLA. PyTorch would need a compiler of C.
XLA = keras.backend.backend() != "torch"
# How to train for few steps: TensorFlow runs ten while it compiles one, JAX
# takes longest without compiling, and PyTorch does not compile.
EAGERLY = keras.backend.backend() == "tensorflow"


def mlp(activation="relu"):
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, activation=activation),
            layers.Dense(10, activation=activation),
            layers.Dense(3, activation="softmax"),
        ],
        name="mlp",
    )


def vgg():
    """Convolutions with BatchNormalization, pooling, Flatten, Dropout."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(10, 3, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.Activation("relu"),
            layers.ZeroPadding2D(1),
            layers.Cropping2D(1),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(12, activation="tanh"),
            layers.Dense(4),
        ],
        name="vgg",
    )


def residual():
    """Two blocks on one stream, one added by a layer, one by `+`."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(9, 3, padding="same", name="stem")(inputs)
    for number in (1, 2):
        y = layers.BatchNormalization(name=f"bn{number}a")(x)
        y = layers.ReLU(name=f"relu{number}")(y)
        y = layers.Conv2D(7, 3, padding="same", name=f"conv{number}a")(y)
        y = layers.BatchNormalization(name=f"bn{number}b")(y)
        y = layers.ReLU()(y)
        y = layers.Conv2D(9, 3, padding="same", name=f"conv{number}b")(y)
        x = layers.Add(name="add1")([x, y]) if number == 1 else x + y
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(5, name="top")(x), name="residual")


def dense_block():
    """Concatenations that are read by several convolutions."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    for _ in range(3):
        y = layers.BatchNormalization()(x)
        y = layers.LeakyReLU()(y)
        y = layers.Conv2D(5, 3, padding="same")(y)
        x = layers.Concatenate()([x, y])
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3)(x), name="dense_block")


def shared():
    """A layer called twice, whose outputs meet again."""
    left, right = keras.Input((10,), name="left"), keras.Input((10,))
    tower = layers.Dense(12, activation="relu", name="tower")
    second = layers.Dense(9, activation="relu", name="second")
    a, b = second(tower(left)), second(tower(right))
    x = layers.Concatenate()([a, b, keras.ops.add(a, b)])
    return keras.Model([left, right], layers.Dense(2, name="top")(x))


def _block():
    return keras.Sequential(
        [
            keras.Input((None, 8)),
            layers.Conv1D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="block",
    )


def nested():
    """Models within models, one of them called twice."""
    innermost_in = keras.Input((6, 8))
    innermost = keras.Model(
        innermost_in, layers.Conv1D(9, 3)(innermost_in), name="innermost"
    )
    inner_in = keras.Input((6, 8), name="inner_in")
    x = layers.Conv1D(8, 1, activation="elu")(inner_in)
    inner = keras.Model(inner_in, innermost(x), name="inner")
    block, inputs = _block(), keras.Input((6, 4))
    x = layers.Conv1D(8, 3, padding="same", name="stem")(inputs)
    x = inner(block(block(x)))
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(inputs, layers.Dense(2)(x), name="outer")


def shared_at_two_depths():
    """Keras 3.15 saves this model but cannot load it: see `NOT_OPENED`."""
    block = _block()
    inner_in = keras.Input((6, 8), name="inner_in")
    inner = keras.Model(inner_in, layers.Conv1D(9, 3)(block(inner_in)))
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(8, 3, padding="same", name="stem")(inputs)
    x = layers.Flatten()(inner(block(x)))
    return keras.Model(inputs, layers.Dense(2)(x))


def volumes():
    inputs = keras.Input((4, 4, 4, 2))
    x = layers.Conv3D(6, 2, activation="relu")(inputs)
    x = layers.AveragePooling3D(2)(x)
    x = layers.Reshape((1, 6))(x)
    x = layers.Conv1D(7, 1)(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(2)(x), name="volumes")


def two_heads():
    """Two outputs: a feature map and classes, in a dict."""
    inputs = {"a": keras.Input((6, 6, 2), name="a")}
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs["a"])
    y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    mask = layers.Conv2D(2, 1, name="mask")(y)
    classes = layers.Dense(3, name="classes")(
        layers.GlobalAveragePooling2D()(layers.Concatenate()([x, y]))
    )
    return keras.Model(inputs, {"mask": mask, "classes": classes})


FACTORIES = {
    factory.__name__: factory
    for factory in (
        mlp,
        vgg,
        residual,
        dense_block,
        shared,
        nested,
        shared_at_two_depths,
        volumes,
        two_heads,
    )
}


# What pruning `shared_at_two_depths` warns of.
NOT_OPENED = "ignore:Keras saves the new model"


def randomized(model, seed=0):
    """`model` with random weights and non-trivial BatchNormalization."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = rng.normal(size=variable.shape)
        if len(variable.shape) > 1:
            value /= np.sqrt(np.prod(variable.shape[:-1]))
        if variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, variable.shape)
        variable.assign(value)
    return model


def plant(model, seed=0, share=0.3, spaces=None):
    """Copy units onto others, producers and carriers, in prunable spaces.

    Returns:
        {space name: how many units are copies}.
    """
    rng = np.random.default_rng(seed)
    planted = {}
    for space in spaces or kr.trace(model).prunable:
        units = rng.permutation(space.size)
        count = int(share * space.size)
        targets, others = units[:count], units[count:]
        copy_units(space, rng.choice(others, count), targets)
        planted[space.name] = count
    return planted


def copy_units(space, sources, targets, scale=1.0):
    """Make units `targets` of a space copies of `sources`."""
    for place in space.axes:
        if place.on.role is Role.CONSUMER:
            continue
        variable, axis = place.on.variable, place.on.axis
        constant = isinstance(variable, Constant)
        value = variable.value.copy() if constant else numpy(variable)
        value = np.moveaxis(value, axis, 0)
        value[place.positions[targets]] = (
            scale * value[place.positions[sources]]
        )
        value = np.moveaxis(value, 0, axis)
        if constant:
            # The very array that stands in the model's graph.
            variable.value[...] = value
        else:
            variable.assign(value)


def _entries(variable, axis, positions, change):
    """Replace what stands at some positions by `change` of it."""
    value = np.moveaxis(numpy(variable), axis, 0)
    value[positions] = change(value[positions])
    variable.assign(np.moveaxis(value, 0, axis))


def still_units(space, units):
    """Make units of a space constant: their filters are zero."""
    for place in space.axes_of(Role.PRODUCER):
        _entries(
            place.on.variable,
            place.on.axis,
            place.positions[units],
            np.zeros_like,
        )


def scale_units(graph, space, sources, targets, scale) -> bool:
    """Make units `targets` `scale` times `sources`, with all that follows.

    Filters are scaled and, up to the next BatchNormalization, so is all that
    is added. That gives the same for both then.

    Returns:
        Whether they are multiples of one another everywhere: nowhere does
        what is scaled meet what is not.
    """
    if not len(targets):
        return True
    copy_units(space, sources, targets)
    scaled, same, done = np.zeros(len(graph.group), bool), True, set()
    mine = np.zeros(graph.group.max() + 1, bool)
    mine[space.groups[targets]] = True

    def times(variable, axis, ids, change):
        """Once for each variable, however often its layer is called."""
        chosen = mine[graph.group[ids]]
        if variable is None or id(variable) in done or not chosen.any():
            return
        done.add(id(variable))
        if isinstance(variable, Constant):
            value = np.moveaxis(variable.value, axis, 0)
            value[chosen] = change(value[chosen])
        else:
            _entries(variable, axis, chosen, change)

    def larger(value):
        return scale * value

    for step in graph.steps:
        match step:
            case labels.Filtered(ids, kernel, axis, None):
                times(kernel, axis, ids, larger)
                scaled[ids] = True
            case labels.Filtered(ids, source=source) | labels.Copied(
                ids, source
            ):
                scaled[ids] = scaled[source]
            case labels.Shifted(ids, bias=bias, axis=axis, spans=spans):
                times(bias, spans.index(axis), ids, larger)
            case labels.Normalized(ids, source):
                if scaled[source].any():
                    times(step.mean, 0, source, larger)
                    times(
                        step.variance,
                        0,
                        source,
                        lambda v, e=step.epsilon: scale**2 * (v + e) - e,
                    )
            case labels.Joined(ids, sources):
                parts = np.stack([scaled[source] for source in sources])
                own = mine[graph.group[ids]]
                same &= bool((parts.all(0) == parts.any(0))[own].all())
                scaled[ids] = parts.any(axis=0)
            case labels.Carried(ids, variable, axis, "adds"):
                if scaled[ids].any():
                    times(variable, axis, ids, larger)
    return same


def change_one_carrier(space, units, rng) -> bool:
    """Make units differ in one thing that carries them; False if none does."""
    places = [
        place
        for place in space.axes_of(Role.CARRIER)
        if not isinstance(place.on.variable, Constant)
    ]
    if not places:
        return False
    place = places[rng.integers(len(places))]
    _entries(
        place.on.variable,
        place.on.axis,
        place.positions[units],
        lambda value: 1.5 * value + 0.3,
    )
    return True


def gradient(function, x):
    """Of a function of one tensor that returns a number: a NumPy array."""
    x = keras.ops.convert_to_tensor(x)
    if keras.backend.backend() == "jax":
        import jax

        return numpy(jax.grad(function)(x))
    if keras.backend.backend() == "torch":
        x = keras.ops.copy(x).detach().requires_grad_()
        function(x).backward()
        return numpy(x.grad)
    import tensorflow

    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return numpy(tensorflow.convert_to_tensor(tape.gradient(value, x)))


def numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def number(tensor) -> float:
    """What a tensor of one number holds."""
    return float(numpy(tensor))


def random_inputs(model, seed=0, batch=4):
    rng = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda x: rng.normal(
            size=(batch, *(size or 5 for size in x.shape[1:]))
        ).astype("float32"),
        _keras.graph_of(model).input,
    )


def outputs(model, data):
    """What a model answers in inference, a flat list of arrays."""
    with _keras.without_gradients():
        answer = model(data, training=False)
    return [numpy(x) for x in keras.tree.flatten(answer)]


def assert_same_function(a, b, data=None, tolerance=1e-5):
    """Assert that two models agree, relative to the size of the outputs."""
    data = random_inputs(a) if data is None else data
    for x, y in zip(outputs(a, data), outputs(b, data), strict=True):
        assert x.shape == y.shape
        scale = np.abs(x).max()
        assert scale > 0
        np.testing.assert_allclose(y / scale, x / scale, atol=tolerance)


def widths(plan):
    """{space name: (kept, removed)} of the spaces where something goes."""
    return {
        d.space.name: (len(d.selection.kept), len(d.selection.removed))
        for d in plan.decisions
    }
