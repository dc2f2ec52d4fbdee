"""KerasHub's backbones in small configurations, for `hub_models.py`."""

import keras_hub
import numpy as np

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
    "layerwise_depths": [2, 2],
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
    "num_features": 32,
}
RESNET = {
    "image_shape": (64, 64, 3),
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 64, 64, 64],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}
FOUR_STAGES = {
    **MIT,
    "image_shape": (64, 64, 3),
    "layerwise_depths": [2, 2, 2, 2],
    "num_layers": 4,
    "layerwise_num_heads": [1, 2, 2, 4],
    "layerwise_sr_ratios": [4, 2, 2, 1],
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
    "hidden_dims": [8, 16, 24, 32],
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
    "Albert": {**LENGTH, "embedding_dim": 16},
    "Electra": {
        **{k: x for k, x in LENGTH.items() if k != "vocabulary_size"},
        "vocab_size": 50,
        "embedding_dim": 16,
    },
    "FNet": {**SIZES, "max_sequence_length": 16},
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
    "Mixtral": {**GROUPED, "sliding_window": 8, "num_experts": 2, "top_k": 1},
    "Llama": GROUPED,
    "Llama3": GROUPED,
    "Qwen": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 8},
    "Phi3": GROUPED,
    "Falcon": {**SIZES, "num_attention_heads": 4},
    "ViT": {**VIT, "hidden_dim": 32, "mlp_dim": 64},
    "DeiT": {**VIT, "hidden_dim": 32, "intermediate_dim": 64},
    "MiT": MIT,
    "SwinTransformer": {
        **IMAGE,
        "embed_dim": 16,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "window_size": 4,
        "patch_size": 2,
    },
    "ViTDet": {
        **VIT,
        "hidden_size": 32,
        "intermediate_dim": 64,
        "global_attention_layer_indices": [1],
        "num_output_channels": 8,
        "window_size": 2,
    },
    "SegFormer": {
        "image_encoder": ("MiT", FOUR_STAGES),
        "projection_filters": 16,
    },
    "DeepLabV3": {
        "image_encoder": ("ResNet", RESNET),
        "image_shape": RESNET["image_shape"],
        "projection_filters": 8,
        "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P4",
        "upsampling_size": 4,
        "dilation_rates": [6, 12, 18],
    },
    "RetinaNet": {
        "image_encoder": ("ResNet", RESNET),
        "image_shape": RESNET["image_shape"],
        "min_level": 3,
        "max_level": 5,
        "use_p5": True,
    },
    "ResNet": RESNET,
    "CSPNet": {
        **IMAGE,
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2],
        "stackwise_strides": [1, 2],
        "stackwise_num_filters": [16, 32],
        "block_type": "dark_block",
        "stage_type": "dark",
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


def backbone(name: str, options: dict):
    """A backbone with random weights, none of them zero.

    Args:
        name: that of its class, without "Backbone".
        options: the arguments of its constructor; (name, options) for another
            backbone among them.
    """
    inner = {
        key: backbone(*value)
        for key, value in options.items()
        if isinstance(value, tuple) and isinstance(value[0], str)
    }
    model = getattr(keras_hub.models, f"{name}Backbone")(**options | inner)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:  # No biases of zero.
        noise = random.normal(0, 0.05, variable.shape)
        variable.assign(np.array(variable) + noise)
    return model
