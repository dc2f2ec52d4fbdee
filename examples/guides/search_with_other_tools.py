"""
Title: Search with scikit-learn and KerasTuner
Author: the authors of keras_redundancy
Date created: 2026/11/26
Last modified: 2026/11/26
Description: How much to prune, found by a grid search or by a tuner.
Accelerator: None
"""

"""
## Introduction

`kr.search` finds the deepest cut that keeps the accuracy. If your project
searches its settings with scikit-learn or KerasTuner already, the cut can be
one setting among others: both tools take a function that builds a model, and a
pruned model is a stock Keras model.

KerasTuner is installed by `pip install keras-tuner`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import keras_redundancy as kr

keras.utils.set_random_seed(0)

"""
## Setup

A network for handwritten digits. The searches must use digits that the network
was not trained on: the first half is for training, the second half for the
searches.
"""

digits = load_digits()
images = (digits.data / 16).astype("float32")
half = np.arange(len(images)) % 2 == 0
images, new_images = images[half], images[~half]
labels, new_labels = digits.target[half], digits.target[~half]
one_hot = keras.utils.to_categorical(labels)


def network():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return compiled(model)


def compiled(model):
    optimizer = keras.optimizers.Adam(3e-3)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model


trained = network()
trained.fit(images, one_hot, epochs=15, verbose=0)
known = kr.calibrate(trained, images)  # look at the data once, prune often

"""
## scikit-learn

`keras.wrappers.SKLearnClassifier` takes a function that builds a compiled
model, and `model_kwargs` are the arguments of that function. `GridSearchCV`
tries several of them: each network is pruned, fine-tuned on one half of the new
digits and evaluated on the other half, and the other way round.

Pass arguments of `Model.fit` to `grid.fit`: Keras 3.15 loses `fit_kwargs` when
scikit-learn copies the classifier.
"""


def pruned(X, y, ratio):
    return compiled(kr.prune(trained, ratio=ratio, data=known))


grid = GridSearchCV(
    keras.wrappers.SKLearnClassifier(pruned),
    {"model_kwargs": [{"ratio": ratio} for ratio in (0.3, 0.9)]},
    cv=2,
)
grid.fit(new_images, new_labels, epochs=3, verbose=0)

for setting, accuracy in zip(
    grid.cv_results_["params"], grid.cv_results_["mean_test_score"], strict=True
):
    print(f"{setting['model_kwargs']}: accuracy {accuracy:.3f}")

"""
`grid.best_estimator_.model_` is the network of the best ratio, fine-tuned on
all new digits.
"""

found_by_grid = grid.best_estimator_.model_
print(f"{trained.count_params():,} -> {found_by_grid.count_params():,}")

"""
## KerasTuner: prune, then train

A `HyperModel` has a method that builds a compiled model from hyperparameters.
Here it prunes the trained network. `tuner.get_best_models()` builds the best
model again and loads its weights into it. That works since `kr.prune` keeps the
same units each time.
"""


class PrunedNetwork(keras_tuner.HyperModel):
    def build(self, hp):
        ratio = hp.Choice("ratio", [0.3, 0.9])
        return compiled(kr.prune(trained, ratio=ratio, data=known))


new_one_hot = keras.utils.to_categorical(new_labels)
searched = new_images[:450], new_one_hot[:450]
judged = new_images[450:], new_one_hot[450:]

tuner = keras_tuner.GridSearch(
    PrunedNetwork(),
    objective="val_accuracy",
    directory="tuner",
    project_name="pruned",
)
tuner.search(*searched, validation_data=judged, epochs=2, verbose=0)
print(tuner.get_best_hyperparameters()[0].values)

"""
## KerasTuner: prune while training

`fit` of a `HyperModel` trains the model, and returns the value to optimize.
`kr.fit_and_prune` makes the network smaller while it trains, as long as the
accuracy stays above `floor`; the tuner looks for the settings that make the
network smallest.

The smaller network has other shapes than the one that was built, so that the
tuner cannot save it: we do that ourselves, and leave out its callbacks.
"""


class PrunedWhileTraining(keras_tuner.HyperModel):
    def build(self, hp):
        return network()

    def fit(self, hp, model, x, y, callbacks=None, **options):
        ratio = hp.Choice("ratio", [0.2, 0.4])
        cuts = {"ratio": ratio, "data": x}
        found = kr.fit_and_prune(model, x, y, prune=cuts, floor=0.9, **options)
        found.model.save(f"tuner/ratio_{ratio}.keras")
        return {"parameters": found.model.count_params()}


tuner = keras_tuner.GridSearch(
    PrunedWhileTraining(),
    objective=keras_tuner.Objective("parameters", "min"),
    directory="tuner",
    project_name="while_training",
)
tuner.search(images, one_hot, validation_data=judged, epochs=8, verbose=0)
ratio = tuner.get_best_hyperparameters()[0].get("ratio")
smallest = keras.models.load_model(f"tuner/ratio_{ratio}.keras")
print(f"{trained.count_params():,} -> {smallest.count_params():,}")
