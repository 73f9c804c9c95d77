"""What can go wrong for a person, and the exit code each has.

StreamError        1  itself: a library of the system is missing, or what nobody foresaw
├── UsageError     2  a command line or a call asks for something impossible
├── SourceError    3  a camera, microphone or file cannot be read
│   ├── UnexpectedSourceError  nobody foresaw it: opening it again is no remedy
│   └── FrameStaleError  no new frame came in time; asking again may bring one
├── FeedAuthError  5  in `feed.errors`: the feed's keys
├── SloError       6  what was measured is slower than was asked for
└── OutputError    7  a recording or report cannot be written

A bundle that cannot be used is `denseav.export.runtime.bundle.BundleError`, exit code 4.
"""

from typing import ClassVar


class StreamError(Exception):
    """One line: what happened and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(StreamError):
    """A command line or a call asks for something impossible."""

    exit_code: ClassVar[int] = 2


class SourceError(StreamError):
    """A camera, microphone or file cannot be read."""

    exit_code: ClassVar[int] = 3


class UnexpectedSourceError(SourceError):
    """A source's own thread failed in a way that nobody foresaw; the run ends."""


class FrameStaleError(SourceError, TimeoutError):
    """No new frame came in time."""


class SloError(StreamError):
    """What was measured is slower than was asked for."""

    exit_code: ClassVar[int] = 6


class OutputError(StreamError):
    """A recording or report cannot be written."""

    exit_code: ClassVar[int] = 7
