"""What can go wrong with the feed on our side, within the tree of `errors.py`.

StreamError
├── FeedAuthError        5  keys are missing or unsafe, or a connection is refused
├── SourceError          3  a recording of a feed cannot be read, a feed is silent or malformed
└── OutputError          7  the endpoint cannot be bound, a recording cannot be written
"""

from typing import ClassVar

from denseav.stream.errors import StreamError


class FeedAuthError(StreamError):
    """Keys are missing or unsafe, a connection is refused, or keys can no longer be checked."""

    exit_code: ClassVar[int] = 5
