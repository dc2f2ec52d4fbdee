"""Checkpoints: a training continues after its process was killed."""

import hashlib
import json
import os
import re
import warnings

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.files import writable_folder
from keras_redundancy.building.faults import cause_of
from keras_redundancy.training import descriptions
from keras_redundancy.training.restoring import (
    compile_again,
    read_model,
    require_restorable,
)

STATE = "state.json"
SUFFIXES = (".keras", ".npz")
# The most differences between two trainings that an error lists.
SHOWN = 5


class Checkpoint:
    """A folder that holds the state of one training.

    `state.json` names the files of the models. It is replaced after these
    files are written, so that it is valid at any moment. Names of all files
    contain `number`, a hash of the arguments; other files are left alone.
    """

    def __init__(self, folder, model, options: dict):
        """Args:
        folder: a path; the folder is created if it does not exist.
        model: the model that training begins with.
        options: {name: argument} of all arguments that must be the same when
            the training continues.

        Raises:
            ValueError: the folder cannot be written to, or files would not hold
            what a Lambda of the model needs.
        """
        self._folder = writable_folder("checkpoint", folder)
        self._model = model
        self._best = None  # The name of its files.
        # Those of the layers when training began: files have them.
        self._names = [layer.name for layer in _keras.flat_layers(model)]
        require_restorable(model)
        try:
            words = descriptions.words_of_model(model)
        except NotImplementedError as error:
            raise self._cannot_keep(error) from error
        words = {"model": words, **descriptions.describe(options)}
        # JSON turns tuples into lists: compare what can be read back.
        self._words = json.loads(json.dumps(words))
        content = json.dumps(words, sort_keys=True).encode()
        self.number = hashlib.sha256(content).hexdigest()[:8]

    def load(self):
        """The last saved (state, model, best model), or None.

        Raises:
            ValueError: the folder holds another training, or a `state.json`
                that is not of a training.
        """
        path = self._folder / STATE
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text())
            began_with, names = state["began_with"], state["layers"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(path)!r} is no state of a training by fit_and_prune. "
                "Pass another folder as checkpoint=."
            ) from error
        self._require_same(began_with)
        name, self._best = state["files"]["model"], state["files"]["best"]
        self._names = names
        with _keras.scope_of(self._model):
            model = self._load(name, with_optimizer=True)
            if self._best in (None, name):
                return state, model, self._best and model
            return state, model, self._load(self._best)

    def _require_same(self, began_with):
        found = descriptions.differences(began_with, self._words)
        if found:
            more = f"; and {len(found) - SHOWN} more" * (len(found) > SHOWN)
            raise ValueError(
                f"The folder {str(self._folder)!r} holds another training: "
                f"{'; '.join(found[:SHOWN])}{more}. Pass another folder as "
                "checkpoint=, or delete this one to begin anew. To continue "
                "with a model that is made again, give it the same weights, "
                "e.g. by keras.utils.set_random_seed() before making it."
            )

    def save(self, state: dict, model, best) -> None:
        """Save the training, in place of its last saved state.

        Args:
            state: all but the models, for JSON, with the fields of `Progress`
                in an entry "progress".
            model: the model that is trained.
            best: the best model, which may be `model`; None if it is still
                the best model of the last call.
        """
        number = f"{state['progress']['epoch']:05d}-{self.number}"
        name = f"epoch-{number}"
        self._save(name, model, with_optimizer=True)
        files = {"model": name, "best": self._best}
        if best is model:
            files["best"] = name
        elif best is not None:
            files["best"] = f"best-{number}"
            self._save(files["best"], best)
        state |= {"files": files, "layers": self._names}
        state |= {"began_with": self._words}
        fresh = self._folder / f"state-{self.number}.json"
        fresh.write_text(json.dumps(state, indent=1))
        os.replace(fresh, self._folder / STATE)
        self._best = files["best"]
        self._delete_all_but(files.values())

    def check(self) -> None:
        """Raise unless what was saved first can be read again."""
        try:
            with warnings.catch_warnings(), _keras.scope_of(self._model):
                warnings.simplefilter("ignore")  # The copy has warned of it.
                state = json.loads((self._folder / STATE).read_text())
                model = self._load(state["files"]["model"], True)
            if not model.compiled:
                raise ValueError("what compile() was given is not made anew.")
        except Exception as error:  # Whatever the code of layers raises.
            (self._folder / STATE).unlink()
            self._delete_all_but(())
            raise self._cannot_keep(error) from error

    def _cannot_keep(self, error):
        """The error to raise, given what Keras says of the model."""
        return ValueError(
            f"checkpoint= cannot keep {self._model.name!r}, which Keras does "
            f"not save and read again: {cause_of(error)} Leave checkpoint= "
            "out, or add what is missing, such as a get_config() of a layer."
        )

    def _delete_all_but(self, names):
        ours = re.compile(rf"(epoch|best)-\d+-{self.number}")
        for path in self._folder.iterdir():
            is_old = ours.fullmatch(path.stem) and path.stem not in names
            if is_old and path.suffix in SUFFIXES:
                path.unlink()

    def _save(self, name, model, with_optimizer=False):
        model.save(self._folder / f"{name}.keras")
        kept = model.variables
        trainable = [variable.trainable for variable in kept]
        if with_optimizer:
            kept = kept + model.optimizer.variables
        arrays = [_plain(variable) for variable in kept]
        path = self._folder / f"{name}.npz"
        np.savez(path, *arrays, trainable=np.array(trainable, bool))

    def _load(self, name, with_optimizer=False):
        layers = _keras.flat_layers(self._model)
        layers = dict(zip(self._names, layers, strict=True))
        model = read_model(self._folder / f"{name}.keras", layers)
        with np.load(self._folder / f"{name}.npz") as arrays:
            variables = model.variables
            kept = arrays["trainable"]
            for variable, trainable in zip(variables, kept, strict=True):
                if variable.trainable != trainable:
                    variable.trainable = bool(trainable)
            compile_again(self._model, model, layers)
            if with_optimizer:
                # An optimizer has no slots before its first step.
                start = len(variables) + len(model.optimizer.variables)
                if f"arr_{start}" in arrays.files:
                    model.optimizer.build(model.trainable_variables)
                variables = variables + model.optimizer.variables
            for number, variable in enumerate(variables):
                variable.assign(arrays[f"arr_{number}"])
        return model


def _plain(variable):
    """The values as an array that `np.savez` can write: not bfloat16."""
    array = keras.ops.convert_to_numpy(variable)
    is_of_numpy = array.dtype.isbuiltin == 1  # 2 for dtypes of ml_dtypes.
    return array if is_of_numpy else array.astype("float32")
