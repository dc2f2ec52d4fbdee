"""All of `keras.applications`: pruned without a loss, and cut in half.

By default ten of them stand for all (one on JAX, which runs models op by op and
does not mend them). All 40:

    python -m pytest tests/test_applications.py --all-applications

Mending runs on four of them, and on all 40, with two images each, by

    python -m pytest tests/test_applications.py --all-applications -k mended

Each is built for the smallest images it takes and few classes, and without a
softmax, behind which differences would not show.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.channels.tracing import MODEL_INPUT, MODEL_OUTPUT
from tests import models
from tests.stock import answer_of

ALL = [name for name in dir(keras.applications) if name[0].isupper()]
SOME = [
    *("VGG16", "ResNet50", "DenseNet121", "InceptionV3", "Xception"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0"),
    "ConvNeXtTiny",
]
ONE = ["MobileNet"]
MENDED = ["VGG16", "ResNet50", "MobileNetV2", "ConvNeXtTiny"]
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


def pytest_generate_tests(metafunc):
    names = SOME if keras.backend.backend() == "tensorflow" else ONE
    if "name" in metafunc.fixturenames:
        if metafunc.config.getoption("--all-applications"):
            names = ALL
        elif "mended" in metafunc.function.__name__:
            names = MENDED if names is SOME else []
        metafunc.parametrize("name", names)


@pytest.fixture
def application(name):
    """The model with random weights, and images for it."""
    size = SMALLEST.get(name, 32)
    build = getattr(keras.applications, name)
    model = build(
        weights=None,
        input_shape=(size, size, 3),
        classes=5,
        classifier_activation=None,
    )
    images = np.random.default_rng(0).uniform(0, 255, (32, size, size, 3))
    return model, images.astype("float32")


def make_lively(model):
    """Random weights with which the answer depends on the image.

    The shifts of normalisations are as large as their scales, or rounding
    would grow from layer to layer and drown what is compared.
    """
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        value = rng.normal(size=shape)
        if variable.name == "gamma":
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value *= 1.0 if variable.name == "beta" else 0.1
        else:
            alone = "depthwise" in variable.path
            value /= np.sqrt(np.prod(shape[: -2 if alone else -1]))
        variable.assign(value)


def normalize_by(model, images):
    """Give every BatchNormalization the statistics of these images."""
    settings = []
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            settings.append((layer, "momentum", layer.momentum))
        elif isinstance(layer, layers.Dropout):
            settings.append((layer, "rate", layer.rate))
    for layer, name, _ in settings:
        setattr(layer, name, 0.0)
    model(images, training=True)
    for layer, name, value in settings:
        setattr(layer, name, value)


def make_copies(graph, share):
    """Make a share of the units of every prunable space copies of others.

    Returns:
        For each of these spaces the unit that each one is now a copy of, or
        the unit itself.
    """
    rng = np.random.default_rng(1)
    origins = []
    for space in graph.prunable:
        copies, others = np.split(
            rng.permutation(space.size), [int(share * space.size)]
        )
        origin = np.arange(space.size)
        origin[copies] = rng.choice(others, len(copies))
        models.copy_units(space, origin[copies], copies)
        origins.append(origin)
    return origins


def chosen(plan):
    return [d.selection for d in plan.decisions if d.reason is None]


def test_all_applications_are_here():
    assert len(ALL) == 40
    assert set(SOME) < set(ALL)


def test_it_is_pruned_without_a_loss_and_cut_in_half(
    application, stock_keras, tmp_path
):
    """One test, for most of the time goes into building the model."""
    model, images = application
    graph = kr.trace(model)
    assert_all_is_prunable_but_what_the_interface_and_norms_hold(model, graph)
    small = half_of_all_units_cut_at_random(model, graph, images)
    assert_all_is_stock(model, small)
    stock_keras.opens_and_trains(small, images[:8], tmp_path)
    assert_copies_go_and_the_function_stays(model, graph, images)


def test_it_is_mended_with_two_images(application):
    model, images = application
    # With the statistics of new layers, what the deepest networks compute
    # grows beyond float32 as soon as anything is cut.
    normalize_by(model, images)
    small = kr.prune(model, ratio=0.3, data=images[:2])
    assert_all_is_stock(model, small)
    assert small.count_params() < model.count_params()
    for variable in small.variables:
        assert np.isfinite(models.numpy(variable)).all(), variable.path
    assert np.isfinite(answer_of(small, images[:4])).all()


def assert_all_is_stock(model, small):
    assert type(small) is type(model)
    for layer in _keras.flat_layers(small):
        assert type(layer).__module__.startswith("keras.")


def assert_copies_go_and_the_function_stays(model, graph, images):
    make_lively(model)
    make_copies(graph, share=0.3)
    normalize_by(model, images)
    origins = make_copies(graph, share=0.3)  # the statistics of copies, too
    plan = kr.plan(model, tau=0.999)
    assert_exactly_the_copies_go(plan, origins)
    small = plan.apply()
    assert_all_is_stock(model, small)
    answer, others = (
        answer_of(model, images),
        answer_of(small, images),
    )
    scale = np.abs(answer).max()
    assert answer.std(axis=0).max() > 0.01 * scale  # it depends on the image
    np.testing.assert_allclose(others, answer, rtol=0, atol=1e-4 * scale)


def assert_exactly_the_copies_go(plan, origins):
    """Of each unit and its copies one stays, and stands for the others."""
    for selection, origin in zip(chosen(plan), origins, strict=True):
        kept = np.sort(origin[selection.kept])
        np.testing.assert_array_equal(kept, np.unique(origin))
        np.testing.assert_array_equal(origin[selection.stands_for], origin)


def half_of_all_units_cut_at_random(model, graph, images):
    # As many clusters as half of the units; any of the units stay.
    make_copies(graph, share=0.5)
    plan = kr.plan(model, tau=0.999, select="random", seed=0)
    for selection in chosen(plan):
        size = len(selection.stands_for)
        assert len(selection.removed) == size // 2
    small = plan.apply()
    assert small.count_params() == plan.parameters[1]
    assert kr.flops(small) == plan.flops[1]
    answer = answer_of(small, images)
    assert answer.shape == (len(images), 5)
    assert np.isfinite(answer).all()
    return small


def assert_all_is_prunable_but_what_the_interface_and_norms_hold(model, graph):
    """Inputs, outputs, and channels that a layer normalises over."""
    free = [
        space
        for space in graph.spaces
        if space.frozen not in (MODEL_INPUT, MODEL_OUTPUT) and not space.inexact
    ]
    held = graph.parameters_of(*graph.spaces) - graph.parameters_of(*free)
    allowed = 1 - held / model.count_params()
    prunable = graph.parameters_of(*graph.prunable) / model.count_params()
    print(
        f"{model.name}: {prunable:.2%} of the parameters, {allowed:.2%} allowed"
    )
    assert prunable >= 0.9 * allowed
