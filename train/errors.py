"""What can go wrong for a person who prepares data or trains, and the exit code each has.

DataError          3  files or shards cannot be used as they are
├── SettingsError  2  the settings ask for something impossible
├── StoppedError   6  training went nowhere and was stopped
├── DiskError      7  a checkpoint or a figure cannot be written
└── PreemptedError 75 a signal ended training, which goes on when started again

A checkpoint that cannot be used is `denseav.models.CheckpointError`, exit code 4.
"""

from typing import ClassVar


class DataError(ValueError):
    """Files or shards cannot be used as they are; the message says what to do."""

    exit_code: ClassVar[int] = 3


class SettingsError(DataError):
    """The settings ask for something impossible."""

    exit_code: ClassVar[int] = 2


class StoppedError(DataError):
    """Training went nowhere and was stopped."""

    exit_code: ClassVar[int] = 6


class DiskError(DataError):
    """A checkpoint or a figure cannot be written."""

    exit_code: ClassVar[int] = 7


class PreemptedError(DataError):
    """A signal ended training; the same command goes on. The code is sysexits' EX_TEMPFAIL."""

    exit_code: ClassVar[int] = 75
