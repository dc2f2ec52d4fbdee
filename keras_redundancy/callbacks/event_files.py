"""Files that TensorBoard reads, written with what it brings along.

TensorFlow is not needed for that, and `tf.summary` takes several times as long.
"""

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
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from keras_redundancy.heatmaps import png


class EventFile:
    """A file of scalars, histograms and pictures."""

    def __init__(self, folder: Path):
        self._writer = EventFileWriter(str(folder))

    def write(
        self,
        step: int,
        scalars: dict[str, float],
        histograms: dict[str, NDArray],
        cosines: dict[str, NDArray],
    ) -> None:
        """Write what there is at a step, all of it by tag.

        Cosines, each of shape (m, m), are pictures.
        """
        found = [scalar_pb(tag, value) for tag, value in scalars.items()]
        found += [histogram_pb(tag, x) for tag, x in histograms.items()]
        found += [_picture(tag, matrix) for tag, matrix in cosines.items()]
        whole = Summary(value=[value for x in found for value in x.value])
        self._writer.add_event(
            Event(step=step, wall_time=time.time(), summary=whole)
        )
        self._writer.flush()


def _picture(tag, matrix):
    """What `tf.summary.image` writes of one picture."""
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
