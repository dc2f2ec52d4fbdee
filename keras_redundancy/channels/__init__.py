"""What the graph of a model ties together: labels, rules, trace."""

from keras_redundancy.channels.graph import (
    ChannelGraph as ChannelGraph,
)
from keras_redundancy.channels.graph import Space as Space
from keras_redundancy.channels.graph import SpaceAxis as SpaceAxis
from keras_redundancy.channels.graph import VariableAxis as VariableAxis
from keras_redundancy.channels.labels import Channels as Channels
from keras_redundancy.channels.labels import Role as Role
from keras_redundancy.channels.tracing import CallTrace as CallTrace
from keras_redundancy.channels.tracing import trace as trace
