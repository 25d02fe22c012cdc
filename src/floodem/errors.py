"""The one tree of deliberate errors.

Every error that floodem raises on purpose is a `FloodemError` and also the
fitting builtin, so that ``except FileNotFoundError`` works as well. The message
says what is wrong, with the value, and then what to do. `exit_code` is what the
command line ends with; see docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INPUT_REFUSED = 3
EXIT_STOPPED = 4


class FloodemError(Exception):
    """Something a user can understand and mend."""

    exit_code: ClassVar[int] = EXIT_INPUT_REFUSED


class UsageError(FloodemError, ValueError):
    """An option or argument that cannot be understood."""

    exit_code = EXIT_USAGE


class OptionError(UsageError):
    """An option with an impossible value, or an unknown option."""


class GeometryError(FloodemError, ValueError):
    """A box, size or position that does not fit."""


class VolumeNotFoundError(FloodemError, FileNotFoundError):
    """No volume at this address."""


class VolumeFormatError(FloodemError, ValueError):
    """A file that is not what its address says, or a format that cannot hold the data."""


class UnsafeFileError(FloodemError, PermissionError):
    """A file that points outside itself or declares absurd sizes."""


class DestinationExistsError(FloodemError, FileExistsError):
    """Something is already where the result should go."""


class StorageError(FloodemError, OSError):
    """A read or write that the file system refused."""


class LabelError(FloodemError, ValueError):
    """Label data that break a rule: negative, too large for their type, not integer."""


class ModelError(FloodemError, ValueError):
    """A model file or checkpoint that is damaged or does not fit its description."""


class DeviceError(FloodemError, RuntimeError):
    """A device or number format that is not to be had on this machine."""


class DependencyError(FloodemError, ImportError):
    """An optional package that this operation needs is not installed."""


class ResourceError(FloodemError, MemoryError):
    """Not enough memory or disk for what was asked."""


class RunConflictError(FloodemError, RuntimeError):
    """Another run holds this destination, or its earlier blocks were made otherwise."""


class OtherWorkError(RunConflictError):
    """What is there was made from other data or with other options."""


class StoppedError(FloodemError, RuntimeError):
    """The user stopped the run; the same command goes on from there."""

    exit_code = EXIT_STOPPED


class TasksFailedError(FloodemError, RuntimeError):
    """Some tasks of many failed, and all others are done.

    Attributes
    ----------
    failures
        The sentence of each task that failed, by its key.
    """

    def __init__(self, message: str, *, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


class ShardDoneError(FloodemError, RuntimeError):
    """What one of several shards does is done, and others are still at work: nothing is wrong."""

    exit_code = EXIT_DONE
