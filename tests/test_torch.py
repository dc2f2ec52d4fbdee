"""What is so on PyTorch alone: its loaders and tensors, and its gradients."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration.data import Samples, batches

if keras.backend.backend() != "torch":
    pytest.skip("to import PyTorch takes long", allow_module_level=True)
import torch

X = np.random.default_rng(0).normal(size=(40, 12)).astype("float32")


class Named(torch.utils.data.Dataset):
    """Samples of a dictionary, with an entry that is no input."""

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        return {"x": X[number], "number": number}


class Stream(torch.utils.data.IterableDataset):
    """Samples whose number is not known."""

    def __iter__(self):
        return iter(torch.tensor(X))


def loader(*datasets):
    pairs = torch.utils.data.TensorDataset(*map(torch.tensor, datasets))
    return torch.utils.data.DataLoader(pairs, batch_size=16)


LOADERS = {
    "without labels": torch.utils.data.DataLoader(torch.tensor(X), 16),
    "of one tensor": loader(X),
    "with labels": loader(X, np.arange(40)),
    "with weights": loader(X, np.arange(40), np.ones(40)),
    "by name": torch.utils.data.DataLoader(Named(), 16),
    "stream": torch.utils.data.DataLoader(Stream(), 16),
}


def needs_gradients(x):
    return torch.tensor(x, requires_grad=True)


TENSORS = {
    "tensor": needs_gradients(X),
    "in a list": [needs_gradients(X)],
    "bfloat16": torch.tensor(X).bfloat16(),
    "generator": lambda: (needs_gradients(x) for x in np.split(X, 4)),
    "loader": torch.utils.data.DataLoader([*needs_gradients(X)], 16),
}


def network():
    x = inputs = keras.Input((12,), name="x")
    for units in (8, 6, 3):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, x)


# --- data -------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders_are_read_as_arrays_are(kind):
    samples = Samples(LOADERS[kind])
    found = list(batches(network(), samples, 5))
    assert [len(x) for (x,) in found] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate([x for (x,) in found]), X)
    assert samples.shapes == ((12,),)


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_numpy_cannot_read(kind):
    data = TENSORS[kind]
    data = data() if callable(data) else data
    found = np.concatenate([x for (x,) in batches(network(), data, 16)])
    np.testing.assert_allclose(found, X, rtol=2**-8)


def test_a_model_is_pruned_distilled_and_trained_with_loaders():
    model = network()
    model.compile("adam", "mse", metrics=["mae"])
    data = loader(X, X[:, :3])
    small = kr.prune(model, ratio=0.3, data=data)
    for a, b in zip(
        small.get_weights(),
        kr.prune(model, ratio=0.3, data=X, batch_size=16).get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    again = kr.distill(small, model, data, labels=True, epochs=1, verbose=0)
    assert again.count_params() == small.count_params()
    found = kr.fit_and_prune(
        model,
        data,
        prune={"ratio": 0.3, "data": data},
        floor=10.0,
        monitor="val_mae",
        epochs=2,
        validation_data=data,
        verbose=0,
    )
    assert found.model.count_params() < model.count_params()


# --- gradients --------------------------------------------------------------


def test_nothing_is_kept_for_gradients():
    """Each tensor of the walk would otherwise stay until its end."""
    seen = []

    def noted(x):
        seen.append(x.requires_grad)
        return keras.ops.relu(x)

    x = inputs = keras.Input((12,))
    for _ in range(3):
        x = layers.Dense(8, activation=noted)(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    seen.clear()
    kr.prune(model, ratio=0.3, data=X)
    assert len(seen) > 6
    assert not any(seen)
    assert model.layers[1].kernel.value.requires_grad
    model(X)
    assert any(seen)


def trains_all(model):
    """Whether PyTorch knows all trainable variables, to clear gradients."""
    known = set(map(id, model.parameters()))
    return all(id(v.value) in known for v in model.trainable_variables)


def test_the_gradients_of_all_variables_are_cleared():
    """Otherwise those of several steps would add up."""
    model = network()
    model.compile("sgd", "mse")
    rare = kr.factorize(kr.apply_rare(model, 20.0))
    rare.compile("sgd", "mse")
    joining = kr.callbacks.DynamicLowRank(tau_cos=0.5, tau_euc=9.0, shrink=0.1)
    rare.fit(X, X[:, :3], verbose=0, callbacks=[joining])
    assert rare.layers[1].kernel.shape[1] < 8
    small = kr.prune(model, ratio=0.5, optimizer=True)
    for each in (rare, kr.compact(rare), small, kr.strip(model)):
        assert trains_all(each)
    assert trains_all(kr.functional(model, keras.Input((12,))))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: kr.FactorizedDense(
            6, kernel_regularizer=kr.RaReRegularizer(1.0, also="l2")
        ),
        lambda: kr.FactorizedConv2D(
            6, 2, kernel_regularizer=kr.RaReRegularizer(1.0)
        ),
        lambda: layers.Dense(6, kernel_regularizer=kr.RaReRegularizer(1.0)),
        lambda: kr.FrobeniusNormalization(layers.Dense(6)),
        lambda: kr.NoiseOutputs(6),
        lambda: kr.NoiseOutputs(6, "binomial", weight=0.5),
    ],
    ids=["factorized", "convolution", "regularized", "frobenius", "a", "b"],
)
def test_a_step_reads_no_numbers_of_the_device(layer):
    """Tensors of the device "meta" hold none: to read them is an error."""
    layer = layer()
    layer.build((None, 4, 4, 5))
    with keras.device("meta"):
        x = torch.ones((2, 4, 4, 5), device="meta")
        found = [layer(x, training=True), *layer.losses]
    assert {x.device.type for x in found} == {"meta"}


# --- devices ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "name", "words"),
    [
        (ImportError, "x.onnx", "pip install onnx onnxscript"),
        (ValueError, "folder", "KERAS_BACKEND=tensorflow"),
    ],
)
def test_other_backends_export_more(error, name, words, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error("It is not there.")

    monkeypatch.setattr(keras.Model, "export", fail)
    with pytest.raises(error, match=words):
        kr.deploy.export(network(), tmp_path / name)
