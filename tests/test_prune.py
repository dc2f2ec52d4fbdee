"""The invariants of pruning, on every kind of graph that has rules."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

pytestmark = pytest.mark.filterwarnings(models.NOT_OPENED)
graphs = pytest.mark.parametrize("factory", models.FACTORIES.values())


@graphs
def test_planted_duplicates_go_and_the_function_stays(factory):
    model = models.randomized(factory())
    planted = models.plant(model)
    plan = kr.plan(model, tau=0.9999)
    removed = {
        d.space.name: len(d.selection.removed)
        for d in plan.decisions
        if d.reason is None
    }
    assert removed == planted
    assert sum(planted.values()) > 0
    small = plan.apply()
    models.assert_same_function(model, small)
    assert small.count_params() == plan.parameters[1] < model.count_params()


@graphs
def test_nothing_above_tau_gives_the_same_model(factory):
    model = models.randomized(factory())
    same = kr.prune(model, tau=1.0)
    data = models.random_inputs(model)
    for x, y in zip(
        models.outputs(model, data), models.outputs(same, data), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    assert [w.shape for w in same.weights] == [w.shape for w in model.weights]


@graphs
def test_the_model_passed_in_does_not_change(factory):
    model = models.randomized(factory())
    before = [models.numpy(w) for w in model.variables]
    config, nodes = model.get_config(), count_nodes(model)
    kr.prune(model, tau=0.1)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, models.numpy(new))
    assert model.get_config() == config
    assert count_nodes(model) == nodes


def test_training_one_of_the_models_leaves_the_other_alone():
    """What does not change is not copied where the backend can share it."""
    model = models.randomized(models.mlp())
    small = kr.prune(model, tau=1.0)
    data = models.random_inputs(model)
    for trained, other in ((small, model), (model, small)):
        before = [models.numpy(w) for w in other.variables]
        start = models.numpy(trained.weights[0])
        trained.compile("sgd", "mse", run_eagerly=models.EAGERLY)
        trained.fit(data, np.zeros((len(data), 3)), epochs=2, verbose=0)
        assert (models.numpy(trained.weights[0]) != start).any()
        for old, new in zip(before, other.variables, strict=True):
            np.testing.assert_array_equal(old, models.numpy(new))


def count_nodes(model):
    return [len(layer._inbound_nodes) for layer in model._flatten_layers()]


@graphs
def test_a_deep_cut_runs_trains_and_keeps_names(factory):
    model = models.randomized(factory())
    small = kr.prune(model, tau=0.05)
    assert small.count_params() < model.count_params()
    assert type(small) is type(model)
    assert names(small) == names(model)
    data = models.random_inputs(small)
    targets = keras.tree.map_structure(
        lambda x: np.zeros(x.shape, "float32"), small(data)
    )
    small.compile("sgd", "mse", run_eagerly=models.EAGERLY)
    before = [models.numpy(w) for w in small.trainable_weights]
    small.fit(data, targets, epochs=1, verbose=0)
    after = [models.numpy(w) for w in small.trainable_weights]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def names(model):
    return (
        [layer.name for layer in model._flatten_layers()],
        [x.name for x in model.inputs],
    )


@graphs
def test_the_file_opens_again(factory, tmp_path):
    model = models.randomized(factory())
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    if factory is models.shared_at_two_depths:
        small = kr.functional(small)  # The warning says so.
    small.save(tmp_path / "small.keras")
    models.assert_same_function(
        small, keras.models.load_model(tmp_path / "small.keras"), tolerance=0
    )


@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
@pytest.mark.parametrize("keep", ["medoid", "largest", "random", "mean"])
def test_duplicates_go_with_every_representative(linkage, keep):
    model = models.randomized(models.residual())
    planted = models.plant(model, seed=1)
    small = kr.prune(model, tau=0.9999, linkage=linkage, keep=keep, seed=3)
    models.assert_same_function(model, small)
    assert small.get_layer("stem").filters == 9 - max(planted.values())


def test_dropping_changes_what_merging_keeps():
    model = models.randomized(models.vgg())
    models.plant(model)
    data = models.random_inputs(model)
    dropped = kr.prune(model, tau=0.9999, absorb="drop")
    merged = kr.prune(model, tau=0.9999)
    assert dropped.count_params() == merged.count_params()
    (x,), (y,) = models.outputs(model, data), models.outputs(dropped, data)
    assert np.abs(x - y).max() > 0.01 * np.abs(x).max()


@pytest.mark.parametrize("activation", ["relu", "linear", "leaky_relu"])
def test_parallel_filters_merge_exactly_on_a_homogeneous_path(activation):
    model = models.randomized(models.mlp(activation))
    for space in kr.trace(model).prunable:
        models.copy_units(space, np.array([0, 1]), np.array([2, 3]), scale=2.5)
    small = kr.prune(model, tau=0.9999)
    assert [layer.units for layer in small.layers] == [14, 8, 3]
    models.assert_same_function(model, small)


def test_scale_goes_through_batch_normalization():
    """Filters w and 3 w with gammas g and 2 g: the answers differ by 2."""
    model = models.randomized(models.vgg())
    first, normalization = model.layers[:2]
    kernel = models.numpy(first.kernel)
    kernel[..., 1] = 3 * kernel[..., 0]
    first.kernel.assign(kernel)
    for variable, factor in zip(
        normalization.weights, (2, 2, 3, 9), strict=True
    ):
        value = models.numpy(variable)
        value[1] = factor * value[0]
        variable.assign(value)
    normalization.epsilon = 1e-12
    small = kr.prune(model, tau=0.9999)
    assert small.layers[0].filters == 7
    models.assert_same_function(model, small, tolerance=1e-4)


def test_scale_stops_at_an_activation_that_bends():
    """tanh(2 x) is not 2 tanh(x): the consumers are summed as they are."""
    model = models.randomized(models.mlp("tanh"))
    space = kr.trace(model).prunable[0]
    models.copy_units(space, np.array([0]), np.array([5]), scale=2.0)
    small = kr.prune(model, tau=0.9999, keep="largest", layers="dense")
    old, new = (models.numpy(m.layers[1].kernel) for m in (model, small))
    np.testing.assert_allclose(new[4], old[0] + old[5], rtol=1e-6)


def test_opposite_signs_are_not_added_up():
    """Behind a ReLU, gamma and -gamma make channels that never meet."""
    model = models.randomized(models.vgg())
    space = kr.trace(model).prunable[0]
    models.copy_units(space, np.array([0]), np.array([1]))
    gamma = models.numpy(model.layers[1].gamma)
    gamma[1] = -gamma[0]
    model.layers[1].gamma.assign(gamma)
    small = kr.prune(model, tau=0.9999, layers="conv2d", linkage="single")
    assert small.layers[0].filters == 7
    old, new = (models.numpy(m.layers[4].kernel) for m in (model, small))
    assert np.array_equal(new[:, :, 0], old[:, :, 0])


def test_random_selection_keeps_the_number_of_clusters():
    model = models.randomized(models.mlp())
    models.plant(model)
    by_clusters = kr.plan(model, tau=0.9999)
    at_random = kr.plan(model, tau=0.9999, select="random", seed=1)
    assert models.widths(at_random) == models.widths(by_clusters)
    kept = [d.selection.kept.tolist() for d in at_random.decisions]
    again = kr.plan(model, tau=0.9999, select="random", seed=1)
    other = kr.plan(model, tau=0.9999, select="random", seed=2)
    assert kept == [d.selection.kept.tolist() for d in again.decisions]
    assert kept != [d.selection.kept.tolist() for d in other.decisions]


def test_mean_replaces_the_cluster_by_its_mean():
    """All members are made as large as the first one before."""
    model = models.randomized(models.mlp())
    kernel = models.numpy(model.layers[0].kernel)
    noise = np.random.default_rng(0).normal(size=12)
    kernel[:, 4] = 2 * kernel[:, 7] + 0.01 * noise
    model.layers[0].kernel.assign(kernel)
    small = kr.prune(
        model,
        tau=0.999,
        linkage="single",
        keep="mean",
        layers="dense",
    )
    new = models.numpy(small.layers[0].kernel)
    ratio = np.linalg.norm(kernel[:, 4]) / np.linalg.norm(kernel[:, 7])
    np.testing.assert_allclose(
        new[:, 4], (kernel[:, 4] + ratio * kernel[:, 7]) / 2, rtol=1e-5
    )
    bias = models.numpy(model.layers[0].bias)
    np.testing.assert_allclose(
        models.numpy(small.layers[0].bias)[4],
        (bias[4] + ratio * bias[7]) / 2,
        rtol=1e-5,
    )


@pytest.mark.parametrize("keep", ["medoid", "mean", "largest"])
def test_multiples_go_without_a_loss(keep):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(6, 3, use_bias=False, name="conv"),
            layers.DepthwiseConv2D(2, name="depthwise"),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Conv2D(3, 2),
        ]
    )
    models.randomized(model)
    graph = kr.trace(model)
    (space,) = (s for s in graph.prunable if s.producers[0].name == "conv")
    assert models.scale_units(graph, space, [1, 1], [4, 5], 3.0)
    small = kr.prune(model, tau=1.0, keep=keep)
    assert small.get_layer("conv").filters == 4
    models.assert_same_function(model, small)


def test_round_to_and_min_units():
    model = models.randomized(models.vgg())
    rounded = kr.plan(model, tau=0.05, round_to=4)
    free = kr.plan(model, tau=0.05)
    for a, b in zip(free.decisions, rounded.decisions, strict=True):
        if a.reason is None:
            kept, size = len(a.selection.kept), a.space.size
            assert len(b.selection.kept) == min(-(-kept // 4) * 4, size)
            assert set(a.selection.kept) <= set(b.selection.kept)
    wide = kr.plan(model, tau=0.05, min_units=7)
    assert all(len(d.selection.kept) >= 7 or d.reason for d in wide.decisions)
    models.outputs(rounded.apply(), models.random_inputs(model))


def test_rounding_up_keeps_the_units_least_like_their_representatives():
    model = models.randomized(models.mlp())
    layer = model.layers[0]
    kernel = models.numpy(layer.kernel)
    noise = np.random.default_rng(0).normal(size=(2, 12))
    kernel[:, 1] = kernel[:, 0]
    kernel[:, 3] = kernel[:, 2] + 0.02 * noise[0]
    kernel[:, 5] = kernel[:, 4] + 0.06 * noise[1]
    layer.kernel.assign(kernel)
    free, rounded = (
        kr.plan(model, 0.9, layers="dense", min_units=n).decisions[0].selection
        for n in (1, 14)
    )
    assert free.removed.tolist() == [1, 3, 5]
    assert rounded.removed.tolist() == [1, 3]


def test_merging_loses_less_than_dropping_when_units_are_only_similar():
    model = models.randomized(models.vgg())
    models.plant(model)
    rng = np.random.default_rng(5)
    for variable in model.trainable_weights:
        noise = rng.normal(scale=0.02, size=variable.shape)
        variable.assign(models.numpy(variable) + noise)
    data = models.random_inputs(model, batch=64)
    (true,) = models.outputs(model, data)
    errors = {}
    for absorb in ("merge", "drop"):
        small = kr.prune(model, tau=0.98, absorb=absorb)
        errors[absorb] = np.abs(models.outputs(small, data)[0] - true).mean()
    assert errors["merge"] < 0.5 * errors["drop"]


def test_the_variance_of_a_mean_is_corrected():
    """Of white inputs a filter's variance is its squared norm."""
    model = models.randomized(
        keras.Sequential(
            [
                keras.Input((5, 5, 3)),
                layers.Conv2D(6, 3, use_bias=False),
                layers.BatchNormalization(epsilon=1e-9),
                layers.ReLU(),
                layers.Conv2D(2, 1),
            ]
        )
    )
    convolution, norm = model.layers[:2]
    kernel = models.numpy(convolution.kernel)
    kernel[..., 3:5] = kernel[..., :1] + 0.4 * kernel[..., 3:5]
    convolution.kernel.assign(kernel)
    norm.moving_variance.assign((kernel**2).sum((0, 1, 2)))
    small = kr.prune(model, tau=0.7, keep="mean")
    kernel = models.numpy(small.layers[0].kernel)
    assert kernel.shape[-1] == 4
    np.testing.assert_allclose(
        models.numpy(small.layers[1].moving_variance),
        (kernel**2).sum((0, 1, 2)),
        rtol=1e-5,
    )
