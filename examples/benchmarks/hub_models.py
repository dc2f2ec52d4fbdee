"""How much of KerasHub's models can go: `python hub_models.py`.

Small configurations with random weights. The share is that of the parameters
which lie in spaces of units that can be pruned: without looking into the
layers that are made of layers, and with. Needs `pip install ".[hub]"`.
"""

import time
from unittest import mock

import keras_hub
import numpy as np

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

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
    "hidden_dims": [8, 16],
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
    spaces = kr.trace(model).prunable
    variables = {
        id(place.on.variable): place.on.variable
        for space in spaces
        for place in space.axes
    }
    count = sum(int(np.prod(x.shape)) for x in variables.values())
    return 100 * count / model.count_params()


def row(name, options):
    model = getattr(keras_hub.models, f"{name}Backbone")(**options)
    with mock.patch(INSIDE, return_value=False):
        before = share(model)
    start = time.perf_counter()
    after = share(model)
    seconds = time.perf_counter() - start
    return [name, f"{before:.1f}", f"{after:.1f}", f"{seconds:.1f}"]


def main():
    rows = [row(name, options) for name, options in BACKBONES.items()]
    columns = ("backbone", "before, %", "looked into, %", "trace, s")
    print(Table("Parameters that can go", columns, rows))


if __name__ == "__main__":
    main()
