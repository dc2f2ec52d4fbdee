"""Rules for layers that `strip` replaces: their channels are frozen."""

from keras_redundancy.channels import register_rule
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.low_rank.factorized import (
    FactorizedConv2D,
    FactorizedDense,
)
from keras_redundancy.low_rank.frobenius import FrobeniusNormalization

FOR_TRAINING = Reason(
    "for_training",
    "{name} ({kind}) is there for training: strip(model) makes a stock layer "
    "of it",
)


@register_rule(FactorizedConv2D)
@register_rule(FactorizedDense)
@register_rule(FrobeniusNormalization)
def _for_training(layer, call):
    return call.opaque(FOR_TRAINING)
