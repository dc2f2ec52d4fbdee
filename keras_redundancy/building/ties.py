"""Tied weights: variables that not only their own layer reads.

Whatever reads a variable of a layer has to read, in a copy of the model, the
variable of that layer's copy. `channels.tied` lists how it can be read.
"""

import keras

from keras_redundancy import _keras
from keras_redundancy.building.rebinding import (
    FUNCTION_OBJECTS,
    Rebinder,
    reached_by,
)
from keras_redundancy.channels.tied import borrowed, is_own_function, owners_of


def require_tied(model) -> None:
    """Raise unless a copy of `model` can do without variables of `model`.

    Raises:
        ValueError: an operation reads a variable that is no weight of the
            model, or reads one in Python code that cannot be made anew.
    """
    graph = _keras.flat_graph(model)
    owners = owners_of(graph.layers)
    layers = {id(layer) for layer in _keras.flat_layers(model)}
    for call in graph.calls:
        _refuse_raw_variables(call)
        followed = set(map(id, _keras.variables_in(call.arguments)))
        variables = borrowed(call)
        if any(id(variable) not in followed for variable in variables):
            followed |= _variables_reached(call.operation, layers)
        for variable in variables:
            _require_followed(call.operation, variable, owners, followed)


def require_own_variables(layers) -> None:
    """Raise if two of `layers` have the same variable.

    Raises:
        ValueError: they do.
    """
    owners = {}
    for layer in layers:
        for variable in layer.weights:
            other = owners.setdefault(id(variable), layer)
            if other is not layer:
                raise ValueError(
                    f"The layers {other.name!r} and {layer.name!r} share the "
                    f"variable {variable.path!r}, one of them inside a wrapper "
                    "or a custom layer. Rebuilt from their configs, each would "
                    "have its own. Call the inner layer itself in the "
                    "graph, or give both a layer of their own."
                )


def _require_followed(operation, variable, owners, followed):
    what = (
        f"{operation.name!r} ({type(operation).__name__}) reads the variable "
        f"{variable.path!r}"
    )
    owner = owners.get(id(variable))
    if owner is None:
        raise ValueError(
            f"{what}, which is no weight of a layer of the model: a copy of "
            "the model would share it with the original, and change with it. "
            "Make it a weight of a layer of your own, with add_weight(), and "
            "call layers in the graph itself, not in Python code."
        )
    if id(variable) not in followed:
        raise ValueError(
            f"{what} of the layer {owner.name!r} somewhere in its Python code, "
            "so that a copy of the model would go on reading the original's. "
            "Write what is done with it in the graph, such as keras.ops.matmul"
            "(x, encoder.kernel), or in a Lambda whose function names the "
            "layer itself, not an object that holds it."
        )


def _refuse_raw_variables(call):
    """Raise for `variable.value`, which on TensorFlow is a variable as well."""
    for value in keras.tree.flatten(call.arguments):
        if hasattr(value, "assign") and not isinstance(value, keras.Variable):
            raise ValueError(
                f"{call.operation.name!r} ({type(call.operation).__name__}) "
                f"reads a variable of {keras.backend.backend()} with the shape "
                f"{tuple(value.shape)}, which does not say which layer it "
                "belongs to. Pass Keras's own, such as layer.kernel in place "
                "of layer.kernel.value."
            )


def _variables_reached(operation, layers):
    """Ids of the variables that functions of a layer refer to.

    `layers` has the ids of the layers of the model: a function that refers to
    one of these refers to all its variables.
    """
    found = set()
    for part in _keras.flat_layers(operation):
        for value in _functions_of(part).values():
            for x in reached_by(value):
                if isinstance(x, keras.Variable):
                    found.add(id(x))
                elif id(x) in layers:
                    found.update(map(id, x.variables))
    return found


def _functions_of(layer):
    """{attribute: function} of those of a layer that can refer to others."""
    found = {
        key: x
        for key, x in vars(layer).items()
        if is_own_function(x) or isinstance(x, FUNCTION_OBJECTS)
    }
    if type(layer) is keras.layers.Lambda:
        found["arguments"] = layer.arguments
    return found


class Ties:
    """Variables that calls of a graph have as arguments, in a copy of it.

    While the copy is made, such a variable may not exist yet, because its
    layer is called later: a new variable of its shape stands in for it.
    """

    def __init__(self, recipe):
        """`recipe` is that of the copy."""
        self._recipe, self._calls = recipe, []

    def with_stand_ins(self, arguments):
        """The arguments of a call with stand-ins for variables.

        Returns:
            The new arguments, and {id(stand-in): (variable, stand-in)}.
        """
        lent = {}

        def stand_in(x):
            if not isinstance(x, keras.Variable):
                return x
            shape = self._recipe.value(x).shape
            new = keras.Variable(
                keras.ops.zeros(shape, x.dtype), trainable=False, dtype=x.dtype
            )
            lent[id(new)] = x, new
            return new

        return keras.tree.map_structure(stand_in, arguments), lent

    def note(self, results, lent) -> None:
        """Remember a call that returned `results`, if it read stand-ins."""
        if lent:
            self._calls.append((_keras.node_of(results[0]), lent))

    def tie(self, twins) -> None:
        """Put variables of the new model in the place of the stand-ins.

        Args:
            twins: {id(variable): its counterpart}.
        """
        for node, lent in self._calls:
            for variable, _ in lent.values():
                if id(variable) not in twins:
                    raise ValueError(_other_kind(node.operation, variable.path))
            mine = {key: twins[id(x)] for key, (x, _) in lent.items()}
            _keras.replace_arguments(
                node, lambda x, mine=mine: mine.get(id(x), x)
            )


def tie_functions(pairs, twins, changed) -> None:
    """Let functions of new layers refer to new layers and variables.

    Args:
        pairs: [(layer, its counterpart), ...], inner layers included.
        twins: {id(layer or variable): its counterpart}.
        changed: {id(layer or variable): name} of those that have no
            counterpart, since a layer of another class took their place.

    Raises:
        ValueError: a function refers to one without a counterpart.
    """
    rebinder = Rebinder(twins)

    def rebound_for(layer, value):
        for x in reached_by(value):
            if id(x) in changed:
                raise ValueError(_other_kind(layer, changed[id(x)]))
        return rebinder.rebound(value)

    for old, new in pairs:
        for name, value in _functions_of(new).items():
            rebound = rebound_for(old, value)
            if name == "arguments":
                # Past Keras's tracking: they are weights of other layers.
                vars(new)[name] = rebound
            elif rebound is not value:
                setattr(new, name, rebound)
        for variable in new.variables:
            variable.regularizer = rebound_for(old, variable.regularizer)
            variable.constraint = rebound_for(old, variable.constraint)


def _other_kind(operation, name):
    layer = name.split("/")[-2] if "/" in name else name
    return (
        f"{operation.name!r} ({type(operation).__name__}) reads {name!r}, but "
        f"the layer {layer!r} becomes one of another class in the new model, "
        "whose kernel holds other numbers. Let that layer stay as it is, such "
        f"as by kr.factorize(model, layers=lambda layer: layer.name != "
        f"{layer!r}), or do not tie its weights."
    )
