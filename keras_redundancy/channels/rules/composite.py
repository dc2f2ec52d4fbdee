"""Ready-made rules for layers of a user's own that are made of layers."""

import keras

from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason

AROUND = Reason(
    "around_hidden_widths",
    "the rule for {name} ({kind}) follows the channels hidden inside, not "
    "those that go in and come out",
)
NO_SHAPE = Reason(
    "no_build_shape",
    "{inner}, inside {name} ({kind}), does not say on what shape it was built",
)
SEVERAL = Reason(
    "several_outputs",
    "{inner}, inside {name} ({kind}), returns several tensors",
)
# What configs call a width, also in the config of a wrapper.
WIDTHS = ("units", "filters", *(f"output_shape.{axis}" for axis in range(4)))
IN_CONFIG = ("", "layer.config.", "backward_layer.config.")
HEADS = ("num_heads", "num_query_heads", "num_key_value_heads")


def hidden_widths(**arguments):
    """Make a rule for a layer that hides channels inside.

    A transformer block with a wide feed-forward part is an example: the
    channels that go into the block and come out of it stay, those that are
    hidden inside can go.

        kr.register_rule(
            TransformerBlock,
            kr.hidden_widths(
                ff_dim=("expand", "dropout", "project"),
                num_heads="attention",
            ),
        )

    The rule cannot see the code of the layer, so you have to make sure that:

    - `call` runs the layers of a chain one after the other, and passes the
      hidden channels to no other layers;
    - whatever else `call` does between two of these layers acts on every
      channel alone, as an activation function does. A layer that normalises
      or mixes the hidden channels, such as a LayerNormalization, has to be in
      the chain.

    Otherwise the smaller model computes something else, without a warning.

    Args:
        **arguments: the name of an argument of the layer's constructor that
            sets a hidden width, and the names of the attributes that hold the
            layers of that width:

            - A tuple of names is a chain: its first layer writes as many
              channels as the argument says, its last layer reads them. The
              layers between pass them on, or write as many new ones.
            - A list of tuples: several chains, all of that width.
            - One name: a `MultiHeadAttention` with as many heads as the
              argument says. For a `GroupQueryAttention`, the arguments have
              to be `num_query_heads` and `num_key_value_heads`.

            A name can lead further: "ffn.layers.0" is the first layer of a
            Sequential model that the attribute `ffn` holds.

    Returns:
        A rule, for `register_rule`.

    Raises:
        TypeError: names are given as something else than strings.
        ValueError: no argument is given, or no name for one.
    """
    if not arguments:
        raise ValueError(
            "hidden_widths() was given no argument of the layer's "
            "constructor. Write hidden_widths(ff_dim=('expand', 'project')) "
            "where the argument ff_dim is the width of the layer in the "
            "attribute `expand`, which the layer in `project` reads."
        )
    chains, heads = [], {}
    for argument, names in arguments.items():
        for chain in _chains(argument, names):
            if len(chain) == 1:
                entry = argument if argument in HEADS else HEADS[0]
                heads.setdefault(chain[0], {})[entry] = argument
            else:
                chains.append((argument, chain))

    def rule(layer, call):
        followed = [
            (argument, [_inner(layer, name) for name in chain])
            for argument, chain in chains
        ]
        attention = [(_inner(layer, name), heads[name]) for name in heads]
        first = [chain[0] for _, chain in followed] + [x for x, _ in attention]
        for inner in first:
            if not _shapes(inner):
                return call.opaque(NO_SHAPE, inner=inner.name)
        call.freeze(AROUND)
        for argument, chain in followed:
            _follow(call, argument, chain)
        for inner, sets in attention:
            _follow_heads(call, inner, sets)
        return [call.frozen(tensor, AROUND) for tensor in call.outputs]

    return rule


def _chains(argument, names) -> list[tuple]:
    """The chains that are given for an argument, each a tuple of names."""
    if isinstance(names, str):
        return [(names,)]
    if not isinstance(names, (list, tuple)):
        raise TypeError(
            f"hidden_widths({argument}=...) expects names of attributes: a "
            f"string, a tuple of them or a list of tuples. Received: {names!r}"
        )
    if not names:
        raise ValueError(f"hidden_widths({argument}=...) was given no names.")
    if all(isinstance(name, str) for name in names):
        return [tuple(names)]
    return [chain for part in names for chain in _chains(argument, part)]


def _inner(layer, name):
    """The layer that the attribute `name` of `layer` holds."""
    found = layer
    try:
        for part in name.split("."):
            index = int(part) if part.isdigit() else None
            found = getattr(found, part) if index is None else found[index]
    except (AttributeError, IndexError, KeyError, TypeError):
        found = None
    if isinstance(found, keras.Layer):
        return found
    raise ValueError(
        f"The rule for {type(layer).__name__} names {name!r}, but the layer "
        f"{layer.name!r} holds no Keras layer there. Give hidden_widths() the "
        "names of attributes as in self.expand = keras.layers.Dense(...)."
    )


def _follow(call, argument, chain):
    """The first layer writes channels, the last one reads them."""
    sets = {f"{place}{key}": argument for place in IN_CONFIG for key in WIDTHS}
    first, *others = chain
    out = call.through(first, *_what_goes_into(call, first), sets=sets)
    for inner in others:
        if isinstance(out, list):
            break
        # An activation function may lie between the two.
        hidden = Channels(call.tied(out.ids), out.axis, out.shape)
        last = inner is chain[-1]
        out = call.through(inner, hidden, sets={} if last else sets)
    if isinstance(out, list):
        ids = [x.ids for x in out]
        call.freeze(SEVERAL, *ids, inner=chain[-1].name)
    else:
        call.freeze(AROUND, out.ids)


def _follow_heads(call, inner, sets):
    missing = [entry for entry in sets if entry not in inner.get_config()]
    if missing:
        argument = sets[missing[0]]
        raise ValueError(
            f"The rule for {call.kind} names one layer for {argument}, "
            f"{inner.name!r}, but a {type(inner).__name__} has no "
            f"{missing[0]}. Where {argument} is its width, name the layer "
            "that reads its channels as well: "
            f"hidden_widths({argument}=('{inner.name}', ...))."
        )
    out = call.through(inner, *_what_goes_into(call, inner), sets=sets)
    outputs = out if isinstance(out, list) else [out]
    call.freeze(AROUND, *(x.ids for x in outputs))


def _what_goes_into(call, inner) -> list[Channels]:
    """New, frozen channels of the shapes that an inner layer was built on."""
    given = []
    for shape in _shapes(inner):
        shape = _in_this_call(call, shape)
        ids = call.new_frozen(shape[-1] or 0, AROUND)
        given.append(Channels(ids, len(shape) - 1, shape))
    return given


def _shapes(layer) -> list[tuple]:
    """The shapes that a layer was built on, one for each input."""
    config = layer.get_build_config() or {}
    shapes = config.get("shapes_dict", {"": config.get("input_shape")})
    return [tuple(shape) for shape in shapes.values() if shape is not None]


def _in_this_call(call, shape):
    """A shape with the positions of what goes into this call.

    Where it had those of what went into the outer layer when it was built.
    """
    built, now = _shapes(call.operation), call.inputs[0].shape
    same = bool(built) and built[0][:-1] == shape[:-1]
    return (*now[:-1], shape[-1]) if same else shape
