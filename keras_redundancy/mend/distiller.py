"""The model that trains a student on what its teacher answers."""

import keras

from keras_redundancy.mend.label_loss import LabelLoss


@keras.saving.register_keras_serializable(package="keras_redundancy")
class Distiller(keras.distillation.Distiller):
    """Trains a student to answer as its teacher, and as labels say.

    It takes labels in any structure that `Model.fit` takes, where that of
    Keras compares the structures of labels, losses and outputs.

    By default it trains the student as it answers at inference: its
    BatchNormalization goes on with the statistics that mending gave it, which
    do not depend on the batch, and Dropout leaves its numbers alone.

    It can be saved, to look at its `student`; it is not compiled when it is
    loaded.
    """

    def __init__(self, *args, batch_statistics: bool = False, **kwargs):
        """Take the models.

        Args:
            *args, **kwargs: as for `keras.distillation.Distiller`.
            batch_statistics: train the student as `Model.fit` does.
        """
        super().__init__(*args, **kwargs)
        self.batch_statistics, self.label_loss = batch_statistics, None

    def compile(self, optimizer, loss: LabelLoss | None = None, **kwargs):
        self.label_loss = loss
        # Keras asks for a loss, which `compute_loss` does not use.
        super().compile(optimizer, loss="mse", **kwargs)

    def call(self, inputs, training=None, **kwargs):
        training = training if self.batch_statistics else False
        return self.student(inputs, training=training, **kwargs)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        of_labels = 0.0
        if self.label_loss:
            of_labels = self.label_loss(y, y_pred, sample_weight)
        wanted = self.teacher(x, training=False)
        losses = zip(
            self.distillation_losses,
            self.distillation_loss_weights,
            strict=True,
        )
        of_answers = sum(
            weight * loss.compute_loss(wanted, y_pred)
            for loss, weight in losses
        )
        share = self.student_loss_weight
        total = share * of_labels + (1 - share) * of_answers
        self.student_loss_tracker.update_state(of_labels)
        self.distillation_loss_tracker.update_state(of_answers)
        self.total_loss_tracker.update_state(total)
        return total

    def get_config(self):
        return super().get_config() | {
            "batch_statistics": self.batch_statistics
        }

    def get_compile_config(self):
        """Nothing: a loaded one is looked at, and not trained any further."""
        return {}
