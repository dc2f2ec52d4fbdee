"""The rule for `NoiseOutputs`, which stay while training goes on."""

from keras_redundancy.channels import Channels, register_rule
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.noise_out.outputs import NoiseOutputs

OUTPUTS = Reason("noise_output", "it is a noise output of {name} ({kind})")


@register_rule(NoiseOutputs)
def _noise_outputs(layer, call):
    axis = len(call.outputs[0].shape) - 1
    ids = call.labels_on(axis)
    call.read_by(layer.kernel, 0, ids)
    call.keeps(layer.bias)
    noise = [
        Channels(call.new_frozen(layer.units, call.say(OUTPUTS)), axis)
        for _ in call.outputs[1:]
    ]
    return [Channels(ids, axis), *noise] if noise else Channels(ids, axis)
