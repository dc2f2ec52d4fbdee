"""Event files for TensorBoard, written by the tensorboard package.

TensorFlow is not needed, and `tf.summary` would take several times as long.
"""

import itertools
import os
import socket
import time
from pathlib import Path

from numpy.typing import NDArray
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from keras_redundancy.reports.heatmaps import png

# Numbers in file names: files made in the same second must differ.
_NUMBERS = itertools.count()


class EventFile:
    """An event file of scalars, histograms and pictures.

    The file is open only during `write`, so that nothing is lost when
    training is interrupted.
    """

    def __init__(self, folder: Path):
        self._folder, self._path = folder, None

    def write(
        self,
        step: int,
        scalars: dict[str, float],
        histograms: dict[str, NDArray],
        cosines: dict[str, NDArray],
    ) -> None:
        """Append the values of a step.

        Args:
            step: the number of the step.
            scalars: {tag: number}.
            histograms: {tag: numbers}.
            cosines: {tag: shape (m, m)}, drawn as pictures.
        """
        found = [scalar_pb(tag, value) for tag, value in scalars.items()]
        found += [histogram_pb(tag, x) for tag, x in histograms.items()]
        found += [_picture(tag, matrix) for tag, matrix in cosines.items()]
        whole = Summary(value=[value for x in found for value in x.value])
        event = Event(step=step, wall_time=time.time(), summary=whole)
        if self._path is None:
            self._path = self._folder / _fresh_name()
            first = Event(wall_time=time.time(), file_version="brain.Event:2")
            self._append(first)
        self._append(event)

    def _append(self, event):
        with self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


def _fresh_name():
    """A new file name that TensorBoard recognises."""
    parts = (f"{int(time.time()):010d}", socket.gethostname(), os.getpid())
    return ".".join(map(str, ("events.out.tfevents", *parts, next(_NUMBERS))))


def _picture(tag, matrix):
    """The summary of one picture, as `tf.summary.image` writes it."""
    (width, height), data = png(matrix, least=128)
    tensor = TensorProto(
        dtype=types_pb2.DT_STRING,
        string_val=[str(width).encode(), str(height).encode(), data],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=3)]),
    )
    metadata = create_summary_metadata(display_name=None, description=None)
    return Summary(
        value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]
    )
