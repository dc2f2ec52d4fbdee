"""What the graph of a model ties together: labels, rules, trace.

`trace(model)` follows every channel through the graph of a functional or
Sequential model. Each channel gets a label, and channels that the graph ties
together are kept or removed together: the units of a residual stream are
compared by the filters of all layers that write to it, the groups of a grouped
convolution keep equally many filters, and the gates of an LSTM go with their
unit.

Followed are:

- kernels: `Dense` on any rank, `EinsumDense`, `Embedding`; `Conv1D`, `Conv2D`
  and `Conv3D` with groups and dilation, transposed, depthwise with any
  multiplier, separable;
- sequences: `LSTM`, `GRU`, `SimpleRNN`, `ConvLSTM`, `Bidirectional`,
  `TimeDistributed`; whole heads of `MultiHeadAttention` and
  `GroupQueryAttention`; `Attention`;
- what works on each channel by itself: `BatchNormalization`, instance and other
  normalisation over positions, `PReLU`, dropout, noise, pooling, padding,
  cropping, resizing, and activations however they are given (those of Keras,
  functions of `keras.ops`, `tf.nn` or `jax.nn`, activation layers, partial
  functions, your own);
- shapes: `Flatten`, `Reshape`, `Permute`, `RepeatVector`, and of `keras.ops`
  reshape, transpose, split, slices such as `x[..., :k]`, stack, concatenate,
  repeat, tile, pad, flip, expand, squeeze and image patches. Fixed sizes in
  them are counted anew for the smaller model. Channels may be merged with the
  batch axis and split from it again, as where attention makes samples of heads;
- several tensors: sums, products, maxima and comparisons, with broadcasting,
  with numbers and with arrays; `matmul`, `einsum`, `dot` and `tensordot` of
  two tensors, as in attention written by hand, and with arrays over positions,
  such as the adjacency matrix of a graph; these and `conv` with a weight of a
  layer of your own;
- reductions over positions or channels: mean, max, sum and the like;
- structure: several inputs and outputs, shared layers, nested models at any
  depth, wrappers, subclasses that compute the same.

An activation function that is not one of Keras is run on some numbers to see
what it does. If it mixes channels, reads variables or is random, the channels
that it is applied to are frozen, and the reason says so.

The channels of everything else are frozen: none is removed, since the package
never guesses.
`Plan.explain()` lists every frozen space of channels, the layers that hold it,
its share of the parameters and the reason:

- Inputs and outputs of the model: their sizes are the model's interface.
- Channels over which something is computed, as by `LayerNormalization`,
  `GroupNormalization`, softmax or a sum over channels: to remove one channel
  changes the others, even if it is an exact copy of another one.
  `allow_inexact=True` prunes these channels too, and the plan marks them as
  inexact.
- Channels that are multiplied with those of another tensor and summed, such as
  queries and keys: a copy cannot be merged into another unit.
- `Lambda`, layers with weights that their rule does not know, and code that
  cannot be followed: nobody knows what these do with channels.

A layer of your own, or one made of layers, needs no rule where its `call` runs
on symbolic tensors: the graph that it records is followed, once it has returned
the same numbers as the layer. `register_rule` adds a rule for any other.
"""

from keras_redundancy.channels.calls import CallTrace as CallTrace
from keras_redundancy.channels.functional import functional as functional
from keras_redundancy.channels.graph import ChannelGraph as ChannelGraph
from keras_redundancy.channels.labels import Channels as Channels, Role as Role
from keras_redundancy.channels.reasons import Reason as Reason
from keras_redundancy.channels.rules import (
    hidden_widths as hidden_widths,
    register_rule as register_rule,
)
from keras_redundancy.channels.spaces import (
    Space as Space,
    SpaceAxis as SpaceAxis,
    VariableAxis as VariableAxis,
)
from keras_redundancy.channels.tracing import trace as trace
