"""What a file of Keras does not hold of a model that is in training."""

import json
import zipfile

import keras

from keras_redundancy import _keras
from keras_redundancy._shared.tables import listed
from keras_redundancy.building.compiling import compile_like
from keras_redundancy.building.configs import objects_of
from keras_redundancy.building.model_classes import copy_attributes
from keras_redundancy.building.rebinding import Rebinder, reached_by

CONFIG = "config.json"
# Arguments of a Lambda that may be functions.
FUNCTIONS = ("function", "output_shape")


def require_restorable(model) -> None:
    """Raise for a Lambda that refers to layers or variables of the model.

    It would go on with those of the model that training began with.
    """
    own = set(map(id, [*_keras.flat_layers(model), *model.variables]))
    bound = [
        layer.name
        for layer in _keras.flat_layers(model)
        if type(layer) is keras.layers.Lambda
        and any(
            id(x) in own
            for value in (layer.function, layer.arguments)
            for x in reached_by(value)
        )
    ]
    if bound:
        raise ValueError(
            f"checkpoint= cannot keep the Lambda {listed(bound, 3)}, whose "
            "function refers to layers or variables of the model. Write a "
            "layer of your own in its place, or leave checkpoint= out."
        )


def read_model(path, layers: dict) -> keras.Model:
    """The model in a `.keras` file, not compiled.

    Args:
        path: that of the file.
        layers: {name in the file: layer of the model that runs the same
            Python code}. Functions, classes and attributes are theirs.
    """
    objects = {}
    for layer in layers.values():
        objects |= objects_of(layer)
    functions = {}
    for name, layer in layers.items():
        if type(layer) is keras.layers.Lambda:
            functions[f"{name}/function"] = layer.function
            shape = _keras.lambda_output_shape(layer)
            functions[f"{name}/output_shape"] = shape
    whole = path
    if functions:
        whole = path.with_name(f"{path.stem}-read.keras")
        _write_with_functions(path, whole, functions)
    try:
        return keras.models.load_model(
            whole,
            custom_objects=objects | functions,
            compile=False,
            # The caller's model runs the same Python code.
            safe_mode=not functions,
        )
    finally:
        if whole != path:
            whole.unlink()


def _write_with_functions(source, target, functions):
    """Copy a file of Keras, with Lambdas that name functions by `functions`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for part in old.namelist():
            content = old.read(part)
            if part == CONFIG:
                config = json.loads(content)
                _name_functions(config, functions)
                content = json.dumps(config).encode()
            new.writestr(part, content)


def _name_functions(config, functions):
    """Replace the functions of Lambdas by their names, in place."""
    if isinstance(config, list):
        for part in config:
            _name_functions(part, functions)
        return
    if not isinstance(config, dict):
        return
    if config.get("class_name") == "Lambda":
        own = config["config"]
        for part in FUNCTIONS:
            name = f"{own['name']}/{part}"
            if callable(functions.get(name)):
                own[part] = {
                    "module": "builtins",
                    "class_name": "function",
                    "config": name,
                    "registered_name": name,
                }
    for part in config.values():
        _name_functions(part, functions)


def compile_again(began_with, model, layers: dict) -> None:
    """Give a model that was read what its file does not hold.

    Args:
        began_with: the model that training began with.
        model: the one that was read.
        layers: as for `read_model`.
    """
    pairs, matches = [], []
    for new in _keras.flat_layers(model):
        old = layers.get(new.name)
        if type(old) is type(new):
            pairs.append((old, new))
            if len(old.variables) == len(new.variables):
                matches += zip(old.variables, new.variables, strict=True)
    if type(began_with) is type(model):
        pairs.append((began_with, model))
    twins = {id(old): new for old, new in [*pairs, *matches]}
    for old, new in pairs:
        if _keras.is_model(old):
            copy_attributes(old, new, dict(twins))
    matches = list({id(old): (old, new) for old, new in matches}.values())
    compile_like(began_with, model, matches, Rebinder(twins))
