"""Noise outputs are there for training only."""

from keras_redundancy.build.stock import register_stock_form
from keras_redundancy.noise_out.outputs import NoiseOutputs


@register_stock_form(NoiseOutputs)
def no_form(layer) -> None:
    """The layers behind it read what it read."""
