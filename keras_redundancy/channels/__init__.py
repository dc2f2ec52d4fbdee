"""What the graph of a model ties together: labels, rules, trace."""

from keras_redundancy.channels.calls import CallTrace as CallTrace
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
