"""Pruning in the middle of training: the optimizer goes on where it was."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.channels import Role
from tests import models

OPTIMIZERS = {
    "sgd": lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "adam": lambda rate: optimizers.Adam(rate, amsgrad=True),
    "rmsprop": lambda rate: optimizers.RMSprop(
        rate, momentum=0.5, centered=True
    ),
    "adamax": optimizers.Adamax,
    "accumulating": lambda rate: optimizers.AdamW(
        rate, gradient_accumulation_steps=2
    ),
    "averaging": lambda rate: optimizers.Adam(rate, use_ema=True),
    "scaling losses": lambda rate: optimizers.LossScaleOptimizer(
        optimizers.Adam(rate)
    ),
}


def network():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, activation="relu", name="hidden"),
            layers.Dense(4, name="last"),
        ]
    )


def data(count=48):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6, 6, 3)).astype("float32")
    return x, rng.integers(0, 4, count)


def compiled(model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=models.EAGERLY)
    return model


def fit(model, epochs=2):
    x, y = data()
    options = {"epochs": epochs, "batch_size": 16, "verbose": 0}
    history = model.fit(x, y, shuffle=False, **options)
    # Keras on JAX has made the averages the weights, the very same arrays,
    # and could not run the model again.
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.copy(variable))
    return history


def make_copies(model):
    """Copy a third of all units, and have what reads them read both alike."""
    model.set_weights([w + 0.1 * np.abs(w).max() for w in model.get_weights()])
    for space in kr.trace(model).prunable:
        targets = np.arange(space.size // 3)
        sources = targets + space.size // 3
        models.copy_units(space, sources, targets)
        for place in space.axes:
            if place.on.role is Role.CONSUMER:
                kernel = models.numpy(place.on.variable)
                rows = np.moveaxis(kernel, place.on.axis, 0)
                positions = place.positions
                rows[positions[targets]] = rows[positions[sources]]
                place.on.variable.assign(kernel)


def states(optimizer):
    return [models.numpy(v) for v in optimizer.variables]


def assert_close(found, expected, tolerance=1e-4):
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max() or 1
        np.testing.assert_allclose(
            one / scale, other / scale, atol=tolerance, rtol=0
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_that_of_a_network_without_the_copies(name):
    """Copies learn twice as fast as one unit would: the rate is 0 at first."""
    model = network()
    make_copies(model)
    compiled(model, OPTIMIZERS[name](0.0))
    alone = kr.prune(model, tau=0.9999)
    assert alone.count_params() < model.count_params()
    fit(model)
    fit(alone)
    small = kr.prune(model, tau=0.9999, optimizer=True)
    assert_close(states(small.optimizer), states(alone.optimizer))
    assert_close(small.get_weights(), alone.get_weights())
    for each in (small, alone):
        each.optimizer.learning_rate = 1e-3
        fit(each)
    assert_close(small.get_weights(), alone.get_weights())
    assert_close(states(small.optimizer), states(alone.optimizer))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_without_dead_units_the_same_run_goes_on(name):
    model = network()
    for layer, dead in (("conv", 3), ("hidden", 4)):
        for variable in model.get_layer(layer).weights:
            value = models.numpy(variable)
            value[..., :dead] = 0
            variable.assign(value)
    compiled(model, OPTIMIZERS[name](1e-3))
    fit(model)
    small = kr.prune(model, tau=0.9999, optimizer=True)
    afresh = kr.prune(model, tau=0.9999)
    assert small.get_layer("conv").filters == 5
    assert small.get_layer("hidden").units == 6
    loss, goes_on, starts_again = (
        fit(each).history["loss"] for each in (model, small, afresh)
    )
    np.testing.assert_allclose(goes_on, loss, rtol=1e-4)
    assert np.abs(np.subtract(starts_again, loss)).max() > 1e-3


def test_schedule_and_counters_go_on():
    model = network()
    schedule = optimizers.schedules.CosineDecay(1e-2, decay_steps=12)
    compiled(model, optimizers.Adam(schedule))
    fit(model)
    small = kr.prune(model, ratio=0.5, optimizer=True)
    assert int(small.optimizer.iterations) == 6
    np.testing.assert_allclose(
        float(small.optimizer.learning_rate), 5e-3, rtol=1e-4
    )
    assert int(kr.prune(model, ratio=0.5).optimizer.iterations) == 0


def test_model_and_its_optimizer_stay_as_they_are():
    model = compiled(network(), OPTIMIZERS["adam"](1e-3))
    fit(model)
    weights, state = model.get_weights(), states(model.optimizer)
    fit(kr.prune(model, ratio=0.5, optimizer=True))
    assert_close(model.get_weights(), weights, 0)
    assert_close(states(model.optimizer), state, 0)
    fit(model)


def test_averages_of_weights_are_cut_as_weights():
    model = network()
    make_copies(model)
    compiled(model, optimizers.Adam(1e-3, use_ema=True))
    fit(model, epochs=1)
    make_copies(model)  # The same ones, as they learn alike.
    kernel = model.get_layer("last").kernel
    ((average, _),) = [
        x for x in _keras.slots(model.optimizer, kernel) if x[1] == "weights"
    ]
    old = np.random.default_rng(0).normal(size=kernel.shape)
    average.assign(old)
    plan = kr.plan(model, tau=0.9999, optimizer=True)
    (selection,) = [
        d.selection for d in plan.decisions if d.space.name == "hidden"
    ]
    small = plan.apply()
    its_kernel = small.get_layer("last").kernel
    ((found, _),) = [
        x
        for x in _keras.slots(small.optimizer, its_kernel)
        if x[1] == "weights"
    ]
    expected = np.zeros_like(old)
    np.add.at(expected, selection.stands_for, old)
    assert len(selection.removed) == 3
    np.testing.assert_allclose(found, expected[selection.kept], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"absorb": "drop"},
        {"select": "clusters", "keep": "mean"},
        {"absorb": "least_squares", "data": data()[0]},
        {"data": data()[0]},
    ],
    ids=["drop", "mean", "least squares", "greedy with a round"],
)
def test_training_goes_on_with_every_absorber(options):
    model = compiled(network(), OPTIMIZERS["averaging"](1e-3))
    fit(model)
    small = kr.prune(model, ratio=0.4, optimizer=True, **options)
    assert int(small.optimizer.iterations) == 6
    for variable in small.trainable_variables:
        for slot, kind in _keras.slots(small.optimizer, variable):
            assert slot.shape == variable.shape
            if kind == "square":
                assert (models.numpy(slot) >= 0).all()
    before = small.evaluate(*data(), verbose=0)
    fit(small, epochs=4)
    assert small.evaluate(*data(), verbose=0) < before


def test_frozen_layers_and_weight_decay_stay_as_they_were():
    model = network()
    model.get_layer("conv").trainable = False
    optimizer = optimizers.AdamW(1e-3, weight_decay=0.1)
    optimizer.exclude_from_weight_decay([model.get_layer("hidden").kernel])
    compiled(model, optimizer)
    fit(model)
    small = kr.prune(model, ratio=0.5, optimizer=True)
    decays = small.optimizer._use_weight_decay
    assert not decays(small.get_layer("hidden").kernel)
    assert decays(small.get_layer("last").kernel)
    before = models.numpy(small.get_layer("conv").kernel)
    fit(small)
    np.testing.assert_array_equal(before, small.get_layer("conv").kernel)


def test_slots_of_other_shapes_start_afresh_with_a_word():
    model = compiled(network(), optimizers.Adafactor(1e-3))
    fit(model)
    with pytest.warns(UserWarning, match=r"What Adafactor keeps for .*kernel"):
        small = kr.prune(model, ratio=0.5, optimizer=True)
    assert int(small.optimizer.iterations) == 6
    loss = fit(small, epochs=3).history["loss"]
    assert loss[-1] < loss[0]


@keras.saving.register_keras_serializable("tests")
class MomentumOfKernels(optimizers.SGD):
    """Keeps a momentum for kernels, and none for other variables."""

    def build(self, variables):
        super().build(variables)
        self.of_kernels = {
            n: self.add_variable_from_reference(x, name="of_kernel")
            for n, x in enumerate(variables)
            if len(x.shape) > 1
        }

    def update_step(self, gradient, variable, learning_rate):
        number = self._get_variable_index(variable)
        if number in self.of_kernels:
            momentum = self.of_kernels[number]
            self.assign(momentum, 0.9 * momentum + gradient)
        super().update_step(gradient, variable, learning_rate)


def test_slots_for_some_variables_start_afresh_where_their_shape_changes():
    model = compiled(network(), MomentumOfKernels(1e-3))
    fit(model)
    cut = {"ratio": 0.5, "layers": "hidden", "optimizer": True}
    with pytest.warns(UserWarning, match=r"of_kernel.* \(2 variables\)"):
        small = kr.prune(model, **cut)
    assert int(small.optimizer.iterations) == 6
    (old, *rest), (new, *_) = (
        [x for x in m.optimizer.variables if x.name.endswith("of_kernel")]
        for m in (model, small)
    )
    assert len(rest) == 2
    assert np.any(models.numpy(old))
    np.testing.assert_array_equal(models.numpy(new), models.numpy(old))
    fit(small)


def test_what_was_never_trained_has_nothing_to_carry_over():
    model = compiled(network(), "adam")
    small = kr.prune(model, ratio=0.5, optimizer=True)
    assert int(small.optimizer.iterations) == 0
    loss = fit(small, epochs=3).history["loss"]
    assert int(small.optimizer.iterations) == 9
    assert loss[-1] < loss[0]


def test_there_has_to_be_an_optimizer():
    with pytest.raises(ValueError, match="is not compiled, so"):
        kr.prune(network(), ratio=0.5, optimizer=True)


def test_layers_that_become_stock_ones_are_refused():
    model = compiled(kr.factorize(network()), "adam")
    with pytest.raises(ValueError, match="cannot go on with the layer 'conv'"):
        kr.prune(model, ratio=0.5, optimizer=True)


def test_what_was_frozen_since_compile_is_not_said_to_start_afresh():
    inputs = keras.Input((8,))
    x = keras.layers.Dense(12, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile("adam", "mse")
    model.fit(np.ones((8, 8)), np.ones((8, 2)), verbose=0)
    model.get_layer("hidden").trainable = False
    small = kr.prune(model, ratio=0.3, optimizer=True)  # Warnings are errors.
    assert not small.get_layer("hidden").trainable
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations)
