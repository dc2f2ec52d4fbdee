"""Build a model from a recipe: like another one, with other sizes and values.

`Builder` goes through the graph of the old model and calls new layers as the
old ones were called; then `weights` sets their variables, and `ties` makes
what read a variable of the old model read that of the new one.
"""

import dataclasses
import warnings
from typing import Any

import keras

from keras_redundancy import _keras
from keras_redundancy.building import (
    cautions,
    closing,
    configs,
    faults,
    model_classes,
    saving,
    ties,
)
from keras_redundancy.building.compiling import compile_like
from keras_redundancy.building.lone_weights import stand_in
from keras_redundancy.building.own_class import (
    in_own_class,
    variable_pairs,
)
from keras_redundancy.building.rebinding import Rebinder
from keras_redundancy.building.recipe import (
    Recipe,
    is_configured,
)
from keras_redundancy.building.weights import (
    assign_weights,
    copy_flags,
    parts,
)
from keras_redundancy.channels.opening import differs
from keras_redundancy.channels.rules.registry import has_rule


def _becomes_a_bias(call, args, kwargs) -> bool:
    """Whether Keras would add an array along another axis than it did."""
    now = _keras.is_added_as_bias(
        call.operation, args, kwargs, of_any_size=True
    )
    return now and not _keras.is_added_as_bias(call.operation, *call.arguments)


def _stays_as_it_is(recipe) -> bool:
    """Whether what a layer reads and returns was left as it is.

    So are layers that no rule follows, and those whose `get_config` fails.
    """
    layer = recipe.layer
    if recipe.is_changed or not isinstance(layer, keras.Layer):
        return False
    return not has_rule(layer) or _keras.config_fault(layer) is not None


def require_rebuildable(model) -> None:
    """Raise unless every layer of `model` can be made anew.

    Raises:
        ValueError: two layers of the graph hold the same variable; or a
            variable is read in a way that a copy cannot follow.
    """
    leaves = [x for x in _keras.flat_graph(model).layers if is_configured(x)]
    ties.require_own_variables(leaves)
    ties.require_tied(model)


def rebuild(recipe: Recipe):
    """The new model of a recipe.

    Returns:
        A model of the class of the old one, where that can be made, with the
        names, dtype policies, trainable flags and compile arguments of the old
        one, and a fresh optimizer.

    Raises:
        ValueError: a layer cannot be made from its config, not be called, or
            has no weights of the right shapes.
    """
    return rebuild_and_match(recipe)[0]


def rebuild_and_match(recipe: Recipe) -> tuple[Any, list[tuple]]:
    """As `rebuild`, and which variable is which.

    Returns:
        The new model, and [(variable, its counterpart in there), ...] of what
        has one.
    """
    model = recipe.model
    if _keras.rebuildable_class(model) is type(model):
        return _rebuilt(recipe)[:2]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain, matches, inlined = _rebuilt(recipe)
        twins = {id(old): new for old, new in matches}
        new, model = None, _keras.opened_from(model)
        # The constructor of the model calls those of its layers.
        if not any(map(closing.can_be_made, inlined)):
            with _keras.scope_of(model):
                new = in_own_class(model, plain, twins)
    if new is None:
        for each in caught:
            warnings.warn_explicit(
                each.message, each.category, each.filename, each.lineno
            )
        return plain, matches
    layers = zip(*map(_keras.flat_layers, (model, new)), strict=False)
    copy_flags(list(layers))
    new.dtype_policy = model.dtype_policy
    matches = variable_pairs(model, new)
    compile_like(model, new, matches)
    return new, matches


def _rebuilt(recipe):
    model, matches = recipe.model, []
    with _keras.scope_of(model):
        builder = Builder(recipe)
        result = builder.model(model)
        if fixed := builder.with_fixed_sizes:
            builder = Builder(recipe, is_fixed=True)
            result = builder.model(model)
            cautions.warn_of_fixed_sizes(result, fixed)
        pairs = builder.pairs
        cautions.warn_of_losses(builder.inline)
        cautions.warn_of_branches(x for x in builder.inline if x is not model)
        recipe = builder.recipe
        copy_flags(pairs)
        for old, new in pairs:
            matches += assign_weights(old, new, recipe)
        twins = builder.tie({id(old): new for old, new in matches})
        for old, new in pairs:
            if _keras.is_model(old) and type(old) is type(new):
                model_classes.copy_attributes(old, new, twins)
        compile_like(model, result, matches, Rebinder(twins))
    saving.warn_of_faults(builder.loading_faults)
    cautions.warn_if_not_opened_again(result)
    return result, matches, builder.inlined


class Builder(_keras.Interpreter):
    """Makes each operation of a graph anew, once, and calls it as before.

    The values of this walk are the `KerasTensor`s of the new graph; None where
    nothing is left of a tensor, as of noise outputs.

    Attributes:
        inlined: the `Opened`s of layers that no arguments make as the recipe
            says.
        loading_faults: (layer, why) of layers that Keras does not make again
            once they are saved.
    """

    def __init__(self, recipe: Recipe, is_fixed: bool = False):
        """`is_fixed`: whether inputs have the sizes that were traced."""
        self.recipe, self._ties = recipe, ties.Ties(recipe)
        self._is_fixed, self._made = is_fixed, {}
        self.inlined = []
        self.loading_faults, self._saved = [], set()

    @property
    def inline(self) -> list:
        """The `Opened`s that are left in the place of their layers."""
        opened = [x for x, _ in self.pairs if isinstance(x, _keras.Opened)]
        return opened + _keras.put_in_place(self.recipe.model)

    @property
    def with_fixed_sizes(self) -> list:
        """Those of `inline` that compute the same for the traced sizes only.

        The graph inside of a layer does that, where it could not be recorded
        on open sizes. The new model then takes inputs of these sizes.
        """
        model = self.recipe.model
        return [x for x in self.inline if x.has_known_sizes and x is not model]

    @property
    def pairs(self) -> list[tuple]:
        """[(operation, what took its place), ...], inner before outer."""
        return list(self._made.values())

    def operation(self, old):
        """What takes the place of an operation; made when first asked for."""
        if id(old) not in self._made:
            new = self._make(self.recipe[old])
            if isinstance(new, keras.Layer):
                saving.build_by_calls(new)
            self._made[id(old)] = old, new
        return self._made[id(old)][1]

    def _make(self, recipe):
        old, form = recipe.layer, recipe.form
        if _keras.is_model(old):
            return self.model(old)
        if type(old) is keras.layers.Lambda:
            return configs.same_lambda(old)
        if form.is_left_out:  # It is in a wrapper.
            return keras.layers.Identity(name=old.name)
        if form.like is not old:
            return self.operation(form.like)
        if not isinstance(old, keras.Layer):
            return configs.operation_anew(old, recipe.settings)
        if _keras.wraps_one_layer(old):
            inner = self.operation(old.layer)
            return configs.made_anew(
                recipe, lambda config: type(old)(**config, layer=inner)
            )
        if isinstance(old, keras.layers.InputLayer):
            return self._input_layer(recipe)
        try:
            return configs.made_anew(recipe, form.kind.from_config)
        except ValueError:
            if not _stays_as_it_is(recipe):
                raise
            return _keras.copy_with_variables(old)

    def _input_layer(self, recipe):
        """A new `InputLayer`, with the sizes open that were left open."""
        old = recipe.layer
        if not self._is_fixed:
            sizes = enumerate(getattr(old, "open_shape", ()))
            left = {("batch_shape", i): None for i, n in sizes if n is None}
            settings = {**recipe.settings, **left}
            recipe = dataclasses.replace(recipe, settings=settings)
        new = configs.made_anew(recipe, recipe.form.kind.from_config)
        new.output.name = old.output.name
        return new

    def model(self, old):
        """A new model for `old`, built on new inputs."""
        graph = _keras.graph_of(old)
        self._require_left_out(graph)
        inputs = [self.operation(_keras.origin(x)).output for x in graph.inputs]
        if isinstance(old, keras.Sequential):
            layers = [
                self.operation(layer)
                for layer in old.layers
                if not self.recipe[layer].form.is_left_out
            ]
            structures = ([*inputs, *layers],)
        else:
            structures = self._inputs_and_outputs(old, graph, inputs)
        twins = {id(old): new for old, new in self.pairs}
        cls, arguments = keras.Model, {}
        if not isinstance(old, _keras.Opened):
            cls, arguments = model_classes.class_and_arguments(old, twins)
        new = cls(*structures, name=old.name, **arguments)
        new.dtype_policy = old.dtype_policy
        self._made[id(old)] = old, new
        return new

    def _inputs_and_outputs(self, model, graph, inputs):
        """What a new model is made with, in the structure of the old one."""
        outputs = self.run(model, inputs)
        for x, made in zip(graph.outputs, outputs, strict=True):
            if made is None:
                message = faults.output_left_out(graph, _keras.origin(x))
                raise ValueError(message)
        tensors = dict(zip(map(id, graph.inputs), inputs, strict=True))
        tensors |= zip(map(id, graph.outputs), outputs, strict=True)
        return [
            keras.tree.map_structure(lambda x: tensors[id(x)], structure)
            for structure in (
                _keras.input_structure(graph),
                _keras.output_structure(graph),
            )
        ]

    def _require_left_out(self, graph):
        """Raise if a layer to leave out returns something else than it reads.

        Its first output is its first input, and of others nothing is left.
        """
        for call in _keras.calls(graph):
            if self.recipe[call.operation].form.is_left_out:
                first = call.inputs[0], call.outputs[0]
                if len({tuple(x.shape) for x in first}) > 1:
                    raise ValueError(faults.another_shape_without(call))

    def model_in(self, operation):
        """None: a new model is called like a layer, not gone through."""

    def call(self, call, values):
        """The tensors that a call makes in the new graph."""
        recipe = self.recipe[call.operation]
        given = [values[id(x)] for x in call.inputs]
        if any(x is None for x in given):
            raise ValueError(faults.hands_on_nothing(call))
        if recipe.form.is_left_out:
            return [given[0], *[None] * (len(call.outputs) - 1)]
        args, kwargs = call.fill_in(values)
        arguments = configs.with_settings(
            {"args": args, "kwargs": kwargs}, self.recipe.arguments(call.node)
        )
        arguments, lent = self._ties.with_stand_ins(arguments)
        if isinstance(call.operation, _keras.Opened):
            # Not the masks, which come with the tensors.
            handed = _keras.handed_to(call.operation, call)
            given = [values[id(x)] for x in handed]
            self._close(call.operation, given)
        if id(call.operation) not in self._made:
            made = stand_in(call.operation, given, self.recipe)
            if made is not None:
                self._made[id(call.operation)] = call.operation, made
        new = self.operation(call.operation)
        opened = call.operation
        is_closed = isinstance(opened, _keras.Opened) and not _keras.is_model(
            new
        )
        if is_closed:
            args, kwargs = opened.arguments_with(given)
            arguments = {"args": args, "kwargs": kwargs}
        elif _becomes_a_bias(call, **arguments):
            args, kwargs = _keras.in_order_of_size(new, **arguments)
            arguments = {"args": args, "kwargs": kwargs}
        try:
            made = new(*arguments["args"], **arguments["kwargs"])
        except configs.REBUILD_ERRORS as error:
            if not _stays_as_it_is(recipe) or new.built:
                message = faults.not_called(recipe, call, given, error)
                raise ValueError(message) from error
            # Its config fails in build() alone.
            new = _keras.copy_with_variables(opened)
            saving.build_by_calls(new)
            self._made[id(opened)] = opened, new
            made = new(*arguments["args"], **arguments["kwargs"])
        self._note_fault(new, arguments)
        flat = keras.tree.flatten(made)
        if _keras.adds_bias_elsewhere(new, flat):
            raise ValueError(faults.bias_elsewhere(new, flat[0].shape))
        made = opened.outputs_among(flat) if is_closed else flat
        self._ties.note(made, lent)
        return made

    def _note_fault(self, new, arguments):
        """Note a layer that does not open again once it is saved."""
        is_stock = _keras.is_stock_class(type(new)) or _keras.is_model(new)
        is_new = isinstance(new, keras.Layer) and id(new) not in self._saved
        if is_stock or not is_new:
            return
        self._saved.add(id(new))
        fault = saving.make_saveable(new, *arguments.values())
        if fault is not None:
            self.loading_faults.append((new, fault))

    def _close(self, opened, given):
        """Make the layer anew that an `Opened` took the place of, if possible.

        The new layer is compared with the graph inside: an argument of the
        constructor, or the size of what it reads, may do more than set a size.
        """
        if id(opened) in self._made:
            return
        found = closing.closed(opened, self.recipe, given)
        if found is None:
            self.inlined.append(opened)
            return
        layer_recipe, new = found
        saving.build_by_calls(new)
        fault = saving.make_saveable(new, *opened.arguments_with(given))
        if fault is not None and not opened.branches:
            return
        new.name = opened.name  # The layer can be there several times.
        recipe = self.recipe.with_layer(layer_recipe)
        if closing.is_changed(opened, self.recipe):
            assign_weights(opened.layer, new, recipe)
            with warnings.catch_warnings(action="ignore"):
                inline = rebuild(self.recipe.of_part(opened))
            if differs(new, inline, opened):
                self.inlined.append(opened)
                return
        if fault is None:
            self._saved.add(id(new))
        self.recipe, self._made[id(opened)] = recipe, (opened.layer, new)

    def tie(self, twins) -> dict:
        """Have the new model read its own variables wherever it reads one.

        Args:
            twins: {id(variable): its counterpart}.

        Returns:
            `twins`, with those of layers, and of layers inside of layers, but
            for those in the place of which there is a layer of another class.
        """
        twins = {id(old): new for old, new in self.pairs} | twins
        others, inside = {}, []
        for old, new in self.pairs:
            if isinstance(old, keras.Layer) and not _keras.is_model(old):
                inside += zip(parts(old), parts(new), strict=False)
            form = self.recipe[old].form
            if form.takes_place_of(old) and not form.is_left_out:
                layers = _keras.flat_layers(old)
                others |= {id(layer): layer.name for layer in layers}
                others |= {id(x): x.path for x in old.variables}
        twins |= {id(old): new for old, new in inside if type(old) is type(new)}
        for key in others:
            twins.pop(key, None)
        self._ties.tie(twins)
        ties.tie_functions(inside, twins, others)
        return twins
