"""TensorBoard's file of a run: figures and pictures enter, records leave.

PyTorch's writer writes in a thread, where a full disk is a traceback that stops nothing; this one
writes at once, and raises.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import image


class EventWriter:
    """A new file of records in a run's folder; whoever opens it closes it.

    Parameters
    ----------
    folder : the run's.
    start : the step it goes on from; TensorBoard forgets what was recorded after it.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")
        self._records = RecordWriter(self._file)
        self._write(0, file_version="brain.Event:2")
        self._write(start + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Record figures of a step by their names."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(step, summary=Summary(value=values))
        self._file.flush()

    def images(self, step: int, name: str, picture_B3HW: Tensor) -> None:
        """Record pictures of a step, 0 to 1."""
        pictures = image(name, picture_B3HW)  # type: ignore[no-untyped-call]
        self._write(step, summary=pictures)
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    def _write(self, step: int, **what: str | Summary | SessionLog) -> None:
        event = Event(wall_time=time.time(), step=step, **what)
        self._records.write(event.SerializeToString())
