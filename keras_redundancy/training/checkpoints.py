"""Keep a training on disk, so that it goes on after it was killed."""

import json
import os
import re

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals
from keras_redundancy.folders import writable_folder
from keras_redundancy.pruning.compiling import compile_like
from keras_redundancy.pruning.configs import objects_of

STATE = "state.json"
OURS = re.compile(r"(epoch|best)-\d+\.(keras|npz)|state\.json(\.new)?")


class Checkpoint:
    """A folder that holds one training.

    What it says is in `state.json`, which is replaced as a whole after all
    files that it names are written. Files of other names are left alone.
    """

    def __init__(self, folder, model):
        """Args:
        folder: where to keep it. It is made where there is none.
        model: the one that training began with.

        Raises:
            ValueError: the folder cannot be written to, or holds something
                else.
        """
        self._folder = writable_folder("checkpoint", folder)
        self._model = model
        self._best = None  # The name of its files.
        others = [x.name for x in self._folder.iterdir()]
        others = [name for name in others if not OURS.fullmatch(name)]
        if others and not (self._folder / STATE).exists():
            raise ValueError(
                f"The folder {str(folder)!r} holds other files, such as "
                f"{others[0]!r}. Pass an empty folder as checkpoint=."
            )

    def load(self):
        """What was saved last: (state, model, best model), or None.

        Raises:
            ValueError: it is of the training of another model, or of
                something else.
        """
        path = self._folder / STATE
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text())
            began_with = state["began_with"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(path)!r} is no state of a training by fit_and_prune. "
                "Pass an empty folder as checkpoint=."
            ) from error
        if began_with != self._fingerprint():
            raise ValueError(
                f"The folder {str(self._folder)!r} holds the training of "
                f"another model than {self._model.name!r}. Pass an empty "
                "folder as checkpoint=, or the model that it began with."
            )
        name, self._best = state["files"]["model"], state["files"]["best"]
        model = self._load(name, with_optimizer=True)
        if self._best is None:
            return state, model, None
        same = self._best == name
        return state, model, model if same else self._load(self._best)

    def save(self, state: dict, model, best) -> None:
        """Put what is there now in the place of what was saved before.

        Args:
            state: all but the models, for JSON; "epoch" is part of it.
            model: the one to go on with.
            best: the best one, which may be `model`, if it is a new one; None
                if it is still the one that was saved before.
        """
        name = f"epoch-{state['epoch']:05d}"
        self._save(name, model, with_optimizer=True)
        files = {"model": name, "best": self._best}
        if best is model:
            files["best"] = name
        elif best is not None:
            files["best"] = f"best-{state['epoch']:05d}"
            self._save(files["best"], best)
        state = {**state, "files": files, "began_with": self._fingerprint()}
        fresh = self._folder / f"{STATE}.new"
        fresh.write_text(json.dumps(state, indent=1))
        os.replace(fresh, self._folder / STATE)
        self._best = files["best"]
        for path in self._folder.iterdir():
            known = path.name == STATE or path.stem in files.values()
            if OURS.fullmatch(path.name) and not known:
                path.unlink()

    def _save(self, name, model, with_optimizer=False):
        model.save(self._folder / f"{name}.keras")
        kept = model.variables
        if with_optimizer:
            kept = kept + model.optimizer.variables
        arrays = [_plain(variable) for variable in kept]
        np.savez(self._folder / f"{name}.npz", *arrays)

    def _load(self, name, with_optimizer=False):
        layers = internals.flat_layers(self._model)
        own_functions = any(type(x) is keras.layers.Lambda for x in layers)
        objects = {}
        for layer in layers:
            objects |= objects_of(layer)
        model = keras.models.load_model(
            self._folder / f"{name}.keras",
            custom_objects=objects,
            compile=False,
            # The model in hand has the same Python code.
            safe_mode=not own_functions,
        )
        compile_like(self._model, model)
        with np.load(self._folder / f"{name}.npz") as arrays:
            variables = model.variables
            if with_optimizer:
                # One that has not trained yet has no slots.
                start = len(variables) + len(model.optimizer.variables)
                if len(arrays.files) > start:
                    model.optimizer.build(model.trainable_variables)
                variables = variables + model.optimizer.variables
            for number, variable in enumerate(variables):
                variable.assign(arrays[f"arr_{number}"])
        return model

    def _fingerprint(self):
        """What model a training began with."""
        return [list(variable.shape) for variable in self._model.variables]


def _plain(variable):
    """An array that NumPy can save, which bfloat16 is not."""
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.isbuiltin else array.astype("float32")
