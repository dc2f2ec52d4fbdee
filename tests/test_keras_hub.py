"""Models of KerasHub: what can go from them, and what is left."""

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from tests import models

hub = pytest.importorskip("keras_hub")
pytestmark = pytest.mark.filterwarnings("ignore:.*has a constructor of its own")

SIZES = {
    "vocabulary_size": 50,
    "num_layers": 1,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
HEADS = {**SIZES, "num_heads": 4}
GROUPED = {**SIZES, "num_query_heads": 4, "num_key_value_heads": 2}
INPUTS = {
    "token_ids": np.random.default_rng(0).integers(1, 50, (3, 10)),
    "padding_mask": np.array([[1] * n + [0] * (10 - n) for n in (10, 7, 4)]),
}


def gpt2():
    return hub.models.GPT2Backbone(**HEADS, max_sequence_length=16)


def gemma():
    return hub.models.GemmaBackbone(**GROUPED, head_dim=8)


def llama():
    return hub.models.LlamaBackbone(**GROUPED)


BACKBONES = {"gpt2": gpt2, "gemma": gemma, "llama": llama}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    keras.utils.set_random_seed(0)
    return BACKBONES[request.param]()


def values(model, inputs):
    """What a model returns, as an array: PyTorch keeps gradients for it."""
    return keras.ops.convert_to_numpy(model(inputs))


def share(model):
    """The share of the parameters that lie in prunable spaces."""
    spaces = kr.trace(model).prunable
    axes = [place.on for space in spaces for place in space.axes]
    variables = {id(axis.variable): axis.variable for axis in axes}
    return sum(np.prod(x.shape) for x in variables.values()) / (
        model.count_params()
    )


def test_most_of_a_small_decoder_can_go(backbone):
    assert share(backbone) > 0.55


def test_decoders_keep_their_class_and_their_open_length(backbone):
    wanted = values(backbone, INPUTS)
    same = kr.prune(backbone, ratio=0)
    np.testing.assert_allclose(wanted, values(same, INPUTS), atol=1e-6)
    plan = kr.plan(backbone, ratio=0.5)
    small = plan.apply()
    assert small.count_params() == plan.parameters[1] < plan.parameters[0]
    assert list(map(type, small.layers)) == list(map(type, backbone.layers))
    assert all(x.shape == (None, None) for x in small.inputs)
    assert small(INPUTS).shape == (3, 10, 32)


def test_an_encoder_without_some_of_its_heads_is_of_stock_layers(tmp_path):
    inputs = keras.Input((None, 32))
    x = hub.layers.TransformerEncoder(64, 4)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    small = kr.prune(model, ratio=0.5)
    own = [x for x in small._flatten_layers() if x.weights]
    assert {type(x).__module__.split(".")[0] for x in own} == {"keras"}
    data = np.random.default_rng(0).normal(size=(2, 7, 32))
    assert_opens_again(small, data, tmp_path)


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX cannot trace KerasHub's code of this layer",
)
def test_heads_that_are_samples_of_windows_go(tmp_path):
    """Windows of 3 x 3 positions, of 4 x 4, are padded."""
    keras.utils.set_random_seed(0)
    model = hub.models.ViTDetBackbone(
        hidden_size=32,
        num_layers=2,
        intermediate_dim=64,
        num_heads=4,
        global_attention_layer_indices=[1],
        image_shape=(32, 32, 3),
        patch_size=8,
        num_output_channels=8,
        window_size=3,
    )
    models.randomized(model)
    spaces = kr.trace(model).prunable
    assert sorted(x.size for x in spaces) == [4, 4, 64, 64]
    models.plant(model, spaces=spaces)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small)
    half = kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop())
    half.save(tmp_path / "half.keras")
    again = keras.models.load_model(tmp_path / "half.keras")
    models.assert_same_function(half, again)


@pytest.mark.filterwarnings("ignore:Layer .* a mask attached to it")
@pytest.mark.filterwarnings("ignore:Layer .* looks like it has unbuilt state")
def test_heads_in_shifted_windows_go(tmp_path):
    """The shifted windows of an image have masks, one for each."""
    keras.utils.set_random_seed(0)
    model = hub.models.SwinTransformerBackbone(
        image_shape=(16, 16, 3),
        embed_dim=16,
        depths=(2,),
        num_heads=(4,),
        window_size=4,
        patch_size=2,
    )
    models.randomized(model)
    assert sorted(x.size for x in kr.trace(model).prunable) == [4, 4, 64, 64]
    models.plant(model)
    plan = kr.plan(model, tau=0.9999)
    small = plan.apply()
    assert small.count_params() == plan.parameters[1] < plan.parameters[0]
    assert kr.flops(small) == plan.flops[1] < plan.flops[0]
    models.assert_same_function(model, small)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


@pytest.mark.filterwarnings("ignore:.*compile", "ignore:Keras saves the new")
def test_a_task_takes_sequences_of_any_length():
    """Its layers are looked into on sequences of one length."""
    keras.utils.set_random_seed(0)
    backbone = hub.models.FNetBackbone(**SIZES, max_sequence_length=16)
    model = models.randomized(hub.models.FNetMaskedLM(backbone, None))
    models.plant(model, spaces=[feed_forward(model)])
    plain = keras.Model(model.inputs, model.outputs)
    small = [kr.prune(x, tau=0.9999) for x in (model, plain)]
    assert type(small[0]) is type(model)
    for length in (5, 16):
        inputs = {
            "token_ids": np.arange(2 * length).reshape(2, length),
            "segment_ids": np.zeros((2, length), int),
            "mask_positions": np.array([[1, 2, 3], [4, 0, 1]]),
        }
        wanted = values(model, inputs)
        for found in small:
            np.testing.assert_allclose(wanted, values(found, inputs), atol=1e-4)


def test_widths_inside_are_chosen_by_data():
    keras.utils.set_random_seed(0)
    model = gpt2()
    rng = np.random.default_rng(1)
    data = {
        "token_ids": rng.integers(1, 50, (32, 10)),
        "padding_mask": np.ones((32, 10), "int32"),
    }
    wanted, errors = values(model, data), []
    for options in ({"data": data}, {"absorb": "drop"}):
        small = kr.prune(model, ratio=0.5, inline=False, **options)
        errors.append(np.square(wanted - values(small, data)).mean())
    assert errors[0] < errors[1]


def language_model():
    model = hub.models.GPT2CausalLM(gpt2(), preprocessor=None)
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        noise = rng.normal(0, 0.3, variable.shape)
        variable.assign_add(noise)
    models.plant(model, spaces=[feed_forward(model)])
    model.compile(sampler="greedy")
    return model


def feed_forward(model):
    (found,) = (x for x in kr.trace(model).prunable if x.size == 64)
    return found


def generated(model):
    """Tokens behind the first three: with a cache, and one after the other."""
    tokens, mask = np.zeros((2, 8), int), np.zeros((2, 8), int)
    tokens[:, :3], mask[:, :3] = INPUTS["token_ids"][:2, :3], 1
    prompt = {"token_ids": tokens, "padding_mask": mask}
    cached = model.generate(prompt, stop_token_ids=None)["token_ids"]
    for i in range(3, 8):
        prompt = {"token_ids": tokens, "padding_mask": mask}
        tokens[:, i] = np.argmax(values(model, prompt)[:, i - 1], -1)
        mask[:, i] = 1
    return np.array([cached, tokens])


@pytest.mark.filterwarnings("ignore:.*compile")
def test_a_language_model_generates_the_same_tokens(tmp_path):
    keras.utils.set_random_seed(0)
    model = language_model()
    small = kr.prune(model, tau=0.9999)
    assert type(small) is type(model)
    assert small.backbone.intermediate_dim == 45
    small.compile(sampler="greedy")
    wanted = generated(model)
    np.testing.assert_array_equal(wanted, generated(small))
    np.testing.assert_array_equal(*wanted)
    assert_opens_again(small, INPUTS, tmp_path)


@pytest.mark.filterwarnings("ignore:The new model is not compiled")
@pytest.mark.filterwarnings(
    r"ignore:The new model takes .* \(10,\), \(10,\) al"
)
def test_a_model_without_its_class_says_what_it_lacks(tmp_path):
    keras.utils.set_random_seed(0)
    model = hub.models.GPT2CausalLM(gpt2(), preprocessor=None)
    shapes = [(10,), (10,)]
    plan = kr.plan(model, ratio=0.5, inline=True, input_shape=shapes)
    assert set(plan.blocks.values()) == {"inline"}
    with pytest.warns(UserWarning, match=r"GPT2CausalLM.*generate"):
        small = plan.apply()
    assert small(INPUTS).shape == (3, 10, 50)
    assert_opens_again(small, INPUTS, tmp_path)


def assert_opens_again(model, inputs, path):
    model.save(path / "small.keras")
    again = keras.models.load_model(path / "small.keras")
    found, wanted = values(again, inputs), values(model, inputs)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*compile")
def test_a_head_that_holds_the_embeddings_of_the_backbone(tmp_path):
    keras.utils.set_random_seed(0)
    options = {**HEADS, "max_sequence_length": 16}
    model = hub.models.BertMaskedLM(hub.models.BertBackbone(**options), None)
    models.randomized(model)
    inputs = {
        **INPUTS,
        "segment_ids": np.zeros((3, 10), int),
        "mask_positions": np.array([[1, 2], [0, 3], [2, 1]]),
    }
    models.plant(model)
    wanted = values(model, inputs)
    found = values(kr.prune(model, tau=0.9999), inputs)
    np.testing.assert_allclose(wanted, found, rtol=1e-4, atol=1e-4)
    small = kr.prune(model, ratio=0.5, inline=True)
    assert small.count_params() < 0.7 * model.count_params()
    assert type(small) is not type(model)
    assert_opens_again(small, inputs, tmp_path)


@pytest.mark.filterwarnings("ignore:.*compile")
def test_a_task_goes_on_to_read_strings(tmp_path):
    """Its preprocessor, with the tokenizer, goes along."""
    keras.utils.set_random_seed(0)
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", "fox", "jumps"]
    tokenizer = hub.models.BertTokenizer(vocabulary=words)
    preprocessor = hub.models.BertTextClassifierPreprocessor(tokenizer, 8)
    options = {**HEADS, "vocabulary_size": 8, "max_sequence_length": 8}
    backbone = hub.models.BertBackbone(**options)
    model = hub.models.BertTextClassifier(backbone, 2, preprocessor)
    skip = "pooled_dense"  # No argument sets its width.
    plan = kr.plan(model, ratio=0.5, inline=False, skip=skip)
    small = plan.apply()
    assert type(small) is type(model)
    assert small.backbone.intermediate_dim == 32
    texts = ["a fox jumps", "jumps a"]
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    found = [x.predict(texts, verbose=0) for x in (small, again)]
    np.testing.assert_array_equal(*found)
    with pytest.warns(UserWarning, match="BertTextClassifier.*preprocessor"):
        kr.prune(model, ratio=0.5, inline=False)
