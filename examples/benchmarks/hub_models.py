"""How much of KerasHub's models can go: `python hub_models.py [names...]`.

Small configurations with random weights. For each model:

- before, looked into: the share of the parameters in spaces of units that can
  be pruned, without looking into the layers that are made of layers, and with.
- copies: the greatest difference after units that are copies of others are
  removed, over the greatest output.
- half: of all units, the half with the least L1 norms is removed; the smaller
  model runs, is trained for a step, saved, and loaded again. Its answer is
  compared with that of the saved one.
- error: with data, over the error of a plain L1 cut of as many units.
- plan, apply: processor seconds for `half`.

Needs `pip install ".[hub]"`.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import keras
import keras_hub
import numpy as np

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table
from keras_redundancy.channels import Role

INSIDE = "keras_redundancy.channels.opening.has_layers_to_open"
SIZES = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
HEADS = {**SIZES, "num_heads": 4}
LENGTH = {**HEADS, "max_sequence_length": 16}
GROUPED = {**SIZES, "num_query_heads": 4, "num_key_value_heads": 2}
IMAGE = {"image_shape": (32, 32, 3)}
VIT = {**IMAGE, "patch_size": 8, "num_layers": 2, "num_heads": 4}
MIT = {
    **IMAGE,
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [16, 32],
}
MOBILENET = {
    **IMAGE,
    "stackwise_expansion": [[8], [16, 16]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [12, 12]],
    "stackwise_kernel_size": [[3], [3, 3]],
    "stackwise_num_strides": [[2], [1, 1]],
    "stackwise_se_ratio": [[None], [0.25, None]],
    "stackwise_activation": [["relu"], ["hard_swish"] * 2],
    "stackwise_padding": [[1], [1, 1]],
    "output_num_filters": None,
    "input_activation": "hard_swish",
    "input_num_filters": 8,
    "depthwise_filters": 8,
    "depthwise_stride": 1,
    "depthwise_residual": False,
    "squeeze_and_excite": None,
    "last_layer_filter": 32,
}
EFFICIENTNET = {
    **IMAGE,
    "stackwise_width_coefficients": [1.0, 1.0],
    "stackwise_depth_coefficients": [1.0, 1.0],
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [8, 12],
    "stackwise_output_filters": [12, 16],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
    "stackwise_strides": [1, 2],
    "stackwise_block_types": ["v1", "v1"],
    "stackwise_force_input_filters": [0, 0],
    "stackwise_nores_option": [False, False],
}
BACKBONES = {
    "Bert": LENGTH,
    "DistilBert": LENGTH,
    "Roberta": LENGTH,
    "DebertaV3": {**LENGTH, "bucket_size": 8},
    "GPT2": LENGTH,
    "GPTNeoX": LENGTH,
    "OPT": LENGTH,
    "Bloom": LENGTH,
    "T5": HEADS,
    "Bart": LENGTH,
    "Whisper": {
        **HEADS,
        "num_mels": 8,
        "max_encoder_sequence_length": 16,
        "max_decoder_sequence_length": 16,
    },
    "Gemma": {**GROUPED, "head_dim": 8},
    "Mistral": {**GROUPED, "sliding_window": 8},
    "Llama": GROUPED,
    "Llama3": GROUPED,
    "Qwen": GROUPED,
    "Phi3": GROUPED,
    "Falcon": {**SIZES, "num_attention_heads": 4},
    "ViT": {**VIT, "hidden_dim": 32, "mlp_dim": 64},
    "DeiT": {**VIT, "hidden_dim": 32, "intermediate_dim": 64},
    "MiT": MIT,
    "ViTDet": {
        **VIT,
        "hidden_size": 32,
        "intermediate_dim": 64,
        "global_attention_layer_indices": [1],
        "num_output_channels": 8,
        "window_size": 2,
    },
    "VGG": {
        **IMAGE,
        "stackwise_num_repeats": [1, 1],
        "stackwise_num_filters": [8, 16],
    },
    "DenseNet": {
        **IMAGE,
        "stackwise_num_repeats": [2, 2],
        "growth_rate": 8,
    },
    "Xception": {
        **IMAGE,
        "stackwise_conv_filters": [[8, 8], [16, 16]],
        "stackwise_pooling": [True, False],
    },
    "MobileNet": MOBILENET,
    "EfficientNet": EFFICIENTNET,
}


def share(model) -> float:
    """The percentage of the parameters that lie in prunable spaces."""
    return 100 * kr.trace(model).explain().prunable


def random_data(model, samples, seed=0):
    """Tokens, masks of padded sequences, and images, in the model's order."""
    random = np.random.default_rng(seed)
    lengths = random.integers(6, 13, samples)
    found = {}
    for x in model.inputs:
        shape = (samples, *(12 if n is None else n for n in x.shape[1:]))
        if "mask" in x.name:
            found[x.name] = (np.arange(shape[1]) < lengths[:, None]).astype(int)
        elif "int" in x.dtype:
            top = 2 if "segment" in x.name else SIZES["vocabulary_size"]
            found[x.name] = random.integers(0, top, shape)
        else:
            found[x.name] = random.normal(size=shape).astype("float32")
    return found if len(found) > 1 else next(iter(found.values()))


def plant_copies(model):
    """Make 30 % of the units of each space copies of other ones."""
    random = np.random.default_rng(0)
    for space in kr.trace(model).prunable:
        units, count = random.permutation(space.size), int(0.3 * space.size)
        targets, sources = units[:count], random.choice(units[count:], count)
        for place in space.axes:
            variable, axis = place.on.variable, place.on.axis
            if place.on.role is not Role.CONSUMER:
                value = np.moveaxis(np.array(variable), axis, 0)
                for target, source in zip(targets, sources, strict=True):
                    there = place.positions[target], place.positions[source]
                    value[there[0]] = value[there[1]]
                variable.assign(np.moveaxis(value, 0, axis))


def answers(model, data):
    found = keras.tree.flatten(model.predict(data, batch_size=8, verbose=0))
    return [np.asarray(x, "float64") for x in found]


def distance(wanted, found):
    pairs = list(zip(wanted, found, strict=True))
    scale = max(abs(a).max() for a, _ in pairs)
    return max(abs(a - b).max() for a, b in pairs) / scale


def squares(wanted, found):
    pairs = zip(wanted, found, strict=True)
    return float(np.mean([np.square(a - b).mean() for a, b in pairs]))


def copies_go(model, data):
    weights = model.get_weights()
    plant_copies(model)
    wanted = answers(model, data)
    plan = kr.plan(model, tau=0.9999)
    gone = sum(len(x.selection.removed) for x in plan.decisions if not x.reason)
    found = distance(wanted, answers(plan.apply(), data))
    model.set_weights(weights)
    return f"{found:.0e} ({gone})"


def half(model, data):
    start = time.process_time()
    small = kr.plan(model, kr.L1(), ratio=0.5, absorb=kr.Drop()).apply()
    seconds = f"{time.process_time() - start:.1f}"
    given = answers(small, data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.keras"
        small.save(path)
        again = keras.models.load_model(path)
    found = f"{distance(given, answers(again, data)):.0e}"
    small.compile("sgd", "mse")
    wanted = small.predict(data, batch_size=8, verbose=0)
    targets = keras.tree.map_structure(np.asarray, wanted)
    small.train_on_batch(data, targets)
    kept = "class" if type(again) is type(model) else "functional"
    return f"{found} {kept}", seconds


def error(model, data, other):
    small = [
        kr.prune(model, ratio=0.5, data=data),
        kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop()),
    ]
    wanted = answers(model, other)
    errors = [squares(wanted, answers(x, other)) for x in small]
    return f"{errors[0] / errors[1]:.2f}"


def tried(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        print(f"{function.__name__}: {type(error).__name__}: {error}"[:600])
        return type(error).__name__


def row(name, options):
    keras.utils.set_random_seed(0)
    model = getattr(keras_hub.models, f"{name}Backbone")(**options)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:  # No biases of zero.
        noise = random.normal(0, 0.05, variable.shape)
        variable.assign(np.array(variable) + noise)
    data, other = random_data(model, 64), random_data(model, 64, seed=1)
    with mock.patch(INSIDE, return_value=False):
        before = share(model)
    after = share(model)
    built = tried(half, model, data)
    built, seconds = (built, "-") if isinstance(built, str) else built
    return [
        name,
        f"{before:.0f}",
        f"{after:.0f}",
        tried(copies_go, model, data),
        built,
        tried(error, model, data, other),
        seconds,
    ]


def main():
    warnings.simplefilter("ignore")
    rows = []
    for name in sys.argv[1:] or BACKBONES:
        rows.append(row(name, BACKBONES[name]))
        print(*rows[-1], flush=True)
    columns = (
        "backbone",
        "before, %",
        "looked into, %",
        "copies (units)",
        "half",
        "error",
        "plan, apply, s",
    )
    print(Table("Parameters that can go", columns, rows))


if __name__ == "__main__":
    main()
