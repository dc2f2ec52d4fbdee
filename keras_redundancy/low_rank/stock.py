"""The stock forms of factorized and normalised layers, and of RaRe.

Until they have these forms, the channels of these layers are frozen.
"""

from keras import ops

from keras_redundancy.building.stock import (
    LayerForm,
    register_stock_form,
    stock_form,
)
from keras_redundancy.channels import register_rule
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.low_rank import factorized
from keras_redundancy.low_rank.frobenius import FrobeniusNormalization
from keras_redundancy.low_rank.rare import RaReRegularizer

FACTORIZED_CLASSES = {
    stock: cls for cls, stock in factorized.STOCK_CLASSES.items()
}

FOR_TRAINING = Reason(
    "for_training",
    "{name} ({kind}) is there for training: strip(model) makes a stock layer "
    "of it",
)
SHRINK = (
    "kr.callbacks.DynamicLowRank makes factorized layers smaller while they "
    "are trained."
)


@register_rule(factorized.FactorizedConv2D)
@register_rule(factorized.FactorizedDense)
@register_rule(FrobeniusNormalization)
def _for_training(layer, call):
    return call.opaque(FOR_TRAINING)


@register_stock_form(factorized.FactorizedConv2D)
@register_stock_form(factorized.FactorizedDense)
def dense_form(layer) -> LayerForm:
    """The stock layer with the kernel P W Q."""
    kind = next(x for x in type(layer).__mro__ if x in factorized.STOCK_CLASSES)
    full, used = map(layer.weights_of, (layer.outer_sizes, layer.sizes))
    return LayerForm(
        layer,
        factorized.STOCK_CLASSES[kind],
        without=factorized.OWN_ARGUMENTS,
        values={"kernel": layer.effective_kernel, "bias": layer.bias},
        unused=full - used,
        advice=SHRINK,
    )


@register_stock_form(FrobeniusNormalization)
def wrapped_form(layer) -> LayerForm:
    """The stock form of the layer inside, its kernel W times k g / ||W||."""
    inner = stock_form(layer.layer)

    def kernel():
        factor = ops.convert_to_numpy(layer.factor())
        return ops.convert_to_numpy(inner.value("kernel")) * factor

    return LayerForm(layer.layer, values={"kernel": kernel})


@register_stock_form(RaReRegularizer)
def other_regularizer(rare):
    """The regularizer that was there before RaRe."""
    return rare.also


def factorized_form(layer) -> LayerForm:
    """A stock layer as a factorized one, where P and Q are the identity."""
    return LayerForm(
        layer,
        FACTORIZED_CLASSES[type(layer)],
        values={"kernel": layer.kernel, "bias": layer.bias},
    )
