"""Steps on sequences alone: recurrent layers, attention, time."""

from keras import layers

from tests.strategies.tensors import LENGTH, like


def _lstm(builder, x, y, width):
    return layers.LSTM(width, return_sequences=True)(x)


def _gru(builder, x, y, width):
    reset_after = width % 2 == 0
    gru = layers.GRU(width, return_sequences=True, reset_after=reset_after)
    return gru(x)


def _last_state(builder, x, y, width):
    state = layers.SimpleRNN(width, "relu")(x)
    return layers.RepeatVector(LENGTH)(state)


def _both_directions(builder, x, y, width):
    mode = "concat" if width % 2 else "sum"
    inner = layers.LSTM(width, return_sequences=True)
    return layers.Bidirectional(inner, merge_mode=mode)(x)


def over_time(builder, x, y, width):
    return layers.TimeDistributed(layers.Dense(width, activation="relu"))(x)


def _multi_head_attention(builder, x, y, width):
    attention = layers.MultiHeadAttention(4, 3, value_dim=2)
    return x + attention(x, y)


def _grouped_query_attention(builder, x, y, width):
    return layers.GroupQueryAttention(3, 6, 3)(x, like(x, y))


def _dot_attention(builder, x, y, width):
    value = layers.Dense(width)(y)
    return layers.Attention()([x, value, like(x, y)])


RECURRENT = [_lstm, _gru, _last_state, _both_directions]
ATTENTION = [
    _multi_head_attention,
    _grouped_query_attention,
    _dot_attention,
]
