"""Models on images whose axes are moved, and parts of them taken."""

import keras
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go, prune


def image_model(between, width=16, **options):
    """`between` takes an image of 6 x 6 positions and 16 channels."""
    inputs = keras.Input((6, 6, 5), **options)
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name="a")
    x = layers.Flatten()(between(x(inputs)))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def that_run(cases: dict, *not_on_torch) -> dict:
    """The cases that Keras can run: PyTorch has no steps back, for example."""
    left_out = not_on_torch if keras.backend.backend() == "torch" else ()
    return {name: x for name, x in cases.items() if name not in left_out}


def assert_followed(model, tmp_path=None, sizes=None, **options):
    """Copies go, and no unit has to stay but those of the output.

    `sizes` are the numbers of units that the spaces should have.
    """
    graph = assert_copies_go(model, tmp_path, **options)
    stays = {s.name: s.frozen for s in graph.spaces if s.frozen and s.producers}
    assert stays == {"top": "it is an output of the model"}
    if sizes is not None:
        assert [s.size for s in graph.prunable] == sizes
    return graph


def reshape(*shape):
    return lambda x: layers.Reshape(shape)(x)


def reshape_operation(*shape):
    return lambda x: ops.reshape(x, (-1, *shape))


def assert_stays(between, reason):
    """A reason in words, and a model that is not cut there."""
    model = models.randomized(image_model(between, batch_size=4))
    (space,) = (s for s in kr.trace(model).spaces if s.name == "a")
    assert reason in space.frozen
    same = prune(model, 0.1)
    models.assert_same_function(model, same, tolerance=0)
