"""Distil: train a smaller model to answer as the original one does."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses
import math
import warnings
from collections.abc import Callable

import keras

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import (
    check_count,
    check_fraction,
    check_positive,
    check_seed,
)
from keras_redundancy._shared.configured import Configured
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.rebuild import rebuild, require_rebuildable
from keras_redundancy.building.recipe import Recipe
from keras_redundancy.building.stripping import strip
from keras_redundancy.calibration.outputs import Answers, outputs_of
from keras_redundancy.channels.functional import with_graph
from keras_redundancy.mend.distillable import (
    require_alike,
    require_judged,
    require_of_arrays,
    require_of_stream,
    weight_of_labels,
)
from keras_redundancy.mend.distiller import Distiller
from keras_redundancy.mend.features import answers, with_features
from keras_redundancy.mend.label_loss import LabelLoss
from keras_redundancy.mend.training_data import (
    TrainingData,
    is_stream,
    of_arrays,
    of_stream,
)


@dataclasses.dataclass(frozen=True, repr=False)
class Training(Configured):
    """How a smaller model is trained: the options of `distill`."""

    epochs: int = 4
    learning_rate: float = 1e-3
    batch_size: int | None = None
    temperature: float = 3.0
    outputs: object = None
    held_out: float = 0.1
    patience: int | None = None
    augment: Callable | None = None
    seed: int | None = 0
    batch_statistics: bool = False
    features: tuple[str, ...] = ()

    def __post_init__(self):
        check_count("epochs", self.epochs)
        for name in ("patience", "batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("learning_rate", "temperature"):
            check_positive(name, getattr(self, name))
        check_fraction(
            "held_out",
            self.held_out,
            "the share of the samples that says which epoch is best",
            zero=True,
            example=0.1,
        )
        check_seed(self.seed)
        if isinstance(self.features, str):
            raise TypeError(
                "features is a list of names of layers, but received "
                f"{self.features!r}. Pass [{self.features!r}]."
            )
        if self.augment is not None and not callable(self.augment):
            raise TypeError(
                "augment is a function of a batch of inputs, or a layer such "
                "as keras.layers.RandomFlip(), but received "
                f"{self.augment!r}."
            )


def distill(
    small: keras.Model,
    model: keras.Model,
    data,
    labels=None,
    *,
    epochs: int = Training.epochs,
    learning_rate: float = Training.learning_rate,
    batch_size: int | None = Training.batch_size,
    temperature: float = Training.temperature,
    outputs=None,
    label_weight: float | None = None,
    held_out: float | None = None,
    patience: int | None = Training.patience,
    augment: Callable | None = None,
    validation_data=None,
    steps: int | None = None,
    seed: int | None = Training.seed,
    batch_statistics: bool = Training.batch_statistics,
    features: list[str] | tuple[str, ...] = Training.features,
    callbacks: list | None = None,
    verbose="auto",
) -> keras.Model:
    """Train a copy of a smaller model to answer as the original one does.

        small = kr.prune(model, target={"flops": 0.5}, data=images)
        small = kr.distill(small, model, images, epochs=16)

    Labels are not needed: all weights of the smaller model are fitted at once
    to what `model` returns, by `keras.distillation.Distiller` and `Model.fit`,
    with Adam and a learning rate that falls to zero along a cosine.

    Probabilities are compared by the divergence of Kullback and Leibler,
    values by their squared error in units of their variance; with several
    outputs, the differences are added. An output holds probabilities if its
    layer ends in a softmax or sigmoid, and logits if the loss that `model` is
    compiled with says so; for logits of a model that is not compiled, pass
    `outputs`.

    `small` is trained as it runs at inference: every BatchNormalization keeps
    its statistics, so that small batches do no harm, and Dropout does nothing.
    `batch_statistics` changes that.

    Args:
        small: the smaller model, such as `prune` returns. It is not changed.
        model: the original model, with the same inputs and outputs. It is
            not changed.
        data: samples like those that `model` was trained on: arrays, a
            `tf.data.Dataset` or `PyDataset` of batches, or a generator of
            batches, which are all kept in memory. Targets in it are ignored,
            unless labels=True.
        labels: labels of arrays, as `Model.fit` takes them, or True for those
            that come with a dataset: their loss, the one that `small` is
            compiled with, is added, with the dataset's sample weights if it
            has such. So this is fine-tuning with a teacher.
        epochs: how often all samples are used.
        learning_rate: the one to start from.
        batch_size: of arrays, 64 by default, or all samples that are trained
            on if there are fewer. What is left over at the end of an epoch
            is left out. A dataset makes its batches itself.
        temperature: logits are divided by it before their probabilities are
            compared. The greater it is, the more small probabilities count.
        outputs: "softmax", "sigmoid" or "values": what the outputs are, or
            are logits of; or a list with one for each output. By default it
            is found out. With "values", logits are compared by their squared
            error: over many epochs with `batch_statistics` and `features`
            that lost less on ResNets; with the defaults it was no better.
        label_weight: the share of the labels' loss, in (0, 1). Default: 0.5.
        held_out: the share of arrays that is not trained on, and says which
            epoch was the best; 0.1 by default. With 0 the last epoch counts.
            For a dataset there is `validation_data`.
        patience: stop after so many epochs that were no better. By default
            none is left out: while the learning rate is high, epochs may be
            worse than the start, and yet the last ones better.
        augment: with arrays, a function from a batch of inputs to another
            one with as many samples, or a layer, such as
            `keras.layers.RandomFlip("horizontal")`. With few samples this
            helps most. Use what `model` was trained with.
        validation_data: with a dataset, another dataset that says which epoch
            was the best.
        steps: how many batches of a dataset an epoch takes, where its length
            is not known; of a generator, how many batches to use.
        seed: for the order of samples, and for which are held out.
        batch_statistics: whether every BatchNormalization works by the
            statistics of each batch, and Dropout drops, as in `fit`. That
            gains a little over many epochs, where the samples are like those
            that `model` was trained on, and gains nothing where they are not.
            After a deep cut a greater learning_rate is then better.
        features: names of layers, such as those at the ends of the stages of
            a ResNet, whose outputs are compared too, by their squared error
            in units of their variance. Not with `labels`.
        callbacks: as for `Model.fit`. Their `model` is the `Distiller`, whose
            `student` is trained. So of a file that a `ModelCheckpoint` wrote,
            take `keras.models.load_model(path).student`.
        verbose: as for `Model.fit`.

    Returns:
        A new model with the layers of `small` and the weights of the best
        epoch, or those of `small` if no epoch was better. It is compiled as
        `small` is, with a fresh optimizer. Layers with trainable=False keep
        their weights, as in `fit`.

    Raises:
        TypeError: a model has no graph to follow, or an argument is of a
            wrong type.
        ValueError: the models' inputs or outputs differ; all of `small` is
            frozen; `data` is empty, does not fit, or has less samples than a
            batch; outputs are no probabilities, and the compiled loss says
            that they are; there is no loss for `labels`, or these do not fit
            the outputs; there is no layer of a name in `features`; `augment`
            returns no batch of inputs; or an option is out of range or has no
            effect.

    Warns:
        UserWarning: the loss became NaN or infinite: training ended there,
            and the best weights so far are returned; or `small` has more
            parameters than `model`.

    Sources: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural
    Network (2015); Romero et al., FitNets: Hints for Thin Deep Nets (2015),
    for `features`.
    """
    training = Training(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        temperature=temperature,
        outputs=outputs,
        held_out=Training.held_out if held_out is None else held_out,
        patience=patience,
        augment=augment,
        seed=seed,
        batch_statistics=batch_statistics,
        features=features,
    )
    weight = weight_of_labels(label_weight, labels)
    if labels is not None and features:
        raise ValueError(
            f"features={features!r} cannot be compared with labels= at the "
            "same time. Leave one of both out, or distil twice."
        )
    model = with_graph(model)
    require_alike(small, model)
    require_rebuildable(small)
    loss = None if labels is None else LabelLoss(small)
    with_arrays = not is_stream(data)
    require_judged(patience, training.held_out * with_arrays, validation_data)
    if not with_arrays:
        require_of_stream(data, labels, augment, batch_size, held_out)
        found = of_stream(model, data, steps, validation_data)
    else:
        require_of_arrays(data, labels, steps, validation_data)
        labels = loss and loss.needed(labels)
        found = arrays_for(model, data, training, labels, steps)
    student = rebuild(Recipe.of(small))
    others = {"callbacks": callbacks, "verbose": verbose}
    train(student, model, found, training, loss, weight, **others)
    return student


def arrays_for(
    model, data, training: Training, labels=None, steps: int | None = None
) -> TrainingData:
    """Arrays as training data, batched and held out as `training` says."""
    return of_arrays(
        model,
        data,
        labels,
        steps,
        training.batch_size,
        training.held_out,
        training.augment,
        training.seed,
    )


def train(
    student,
    model,
    data: TrainingData,
    training: Training,
    loss: LabelLoss | None = None,
    label_weight: float = 0.0,
    callbacks: list | None = None,
    verbose=0,
) -> None:
    """Train `student` in place, to answer as `model` does.

    Args:
        student: the smaller model.
        model: the original one, which is not changed.
        data: what to train on.
        training: how.
        loss: that of labels, or None.
        label_weight: the share of it.
        callbacks, verbose: as for `Model.fit`.

    Raises:
        ValueError: nothing is trainable, or outputs are no probabilities, and
            the compiled loss says that they are.
    """
    if not student.trainable_variables:
        raise ValueError(
            f"{student.name!r} has no trainable weights, so there is nothing "
            "to distil. Set trainable = True on the layers to train."
        )
    teacher = _teacher(model)
    outputs = outputs_of(model, training.outputs, answers(teacher, data.some))
    if training.features:
        teacher, student, more = with_features(
            teacher, student, training.features, data.some
        )
        outputs += more
    with _keras.scope_of(student), _keras.quiet_about_retracing():
        distiller = Distiller(
            teacher,
            student,
            Answers(outputs, training.temperature),
            student_loss_weight=label_weight,
            batch_statistics=training.batch_statistics,
            # The layers cast what they read, as they would by themselves.
            dtype=student.dtype_policy,
            autocast=False,
        )
        rate = keras.optimizers.schedules.CosineDecay(
            training.learning_rate, training.epochs * data.steps
        )
        distiller.compile(
            keras.optimizers.Adam(rate),
            loss=loss,
            jit_compile=_jit_compile(),
        )
        # TensorFlow would trace the first step once more to make the slots.
        distiller.optimizer.build(distiller.trainable_variables)
        best = _Best(distiller, data, training)
        distiller.fit(
            data.batches,
            epochs=training.epochs,
            steps_per_epoch=data.steps,
            validation_data=data.held_out,
            validation_batch_size=data.batch_size,
            shuffle=False,  # `Batches` are, and datasets are the user's.
            callbacks=[*keras.tree.flatten(callbacks or []), best],
            verbose=verbose,
        )
    best.restore()


class _Best(keras.callbacks.Callback):
    """Keeps the best weights, and ends training where it leads nowhere."""

    def __init__(self, distiller, data, training):
        super().__init__()
        self._student, self._patience = distiller.student, training.patience
        self._rate, self._value, self._epoch = training.learning_rate, None, 0
        self._is_judged, self._failed = data.held_out is not None, None
        if self._is_judged:
            found = _evaluated(distiller, data.held_out, data.batch_size)
            self._value = found
        self._weights = self._student.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        model = self.model  # On JAX this writes the state to the variables.
        value = logs.get("val_loss", logs["loss"])
        if not (math.isfinite(logs["loss"]) and math.isfinite(value)):
            self._failed = epoch + 1
            model.stop_training = True
        elif not self._is_judged or not value >= self._value:
            self._value, self._epoch = value, epoch + 1
            self._weights = self._student.get_weights()
        elif self._patience and epoch + 1 - self._epoch >= self._patience:
            model.stop_training = True

    def restore(self):
        """Set the best weights, and say so if the loss was no number."""
        self._student.set_weights(self._weights)
        if self._failed is not None:
            kept = f"of epoch {self._epoch}" if self._epoch else "before it"
            warn(
                f"The loss became NaN or infinite in epoch {self._failed} of "
                f"distillation, which ended there: the weights {kept} are "
                "kept. Pass a smaller learning_rate than "
                f"{self._rate:g}, or look for such numbers in what the models "
                "return.",
            )


def _evaluated(distiller, data, batch_size):
    x, *labels = data if isinstance(data, tuple) else (data,)
    options = {} if is_stream(x) else {"batch_size": batch_size}
    return distiller.evaluate(
        x, *labels, **options, verbose=0, return_dict=True
    )["loss"]


def _teacher(model):
    """A copy of a model: Keras freezes teachers, and JAX takes their arrays."""
    with warnings.catch_warnings():
        # That it cannot be compiled does not matter.
        warnings.filterwarnings("ignore", "The new model is not compiled")
        return strip(model)


def _jit_compile():
    """TensorFlow trains convolutions faster without XLA on a CPU."""
    is_tensorflow = keras.backend.backend() == "tensorflow"
    on_cpu = is_tensorflow and not keras.distribution.list_devices("gpu")
    return False if on_cpu else "auto"
