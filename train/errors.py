"""What can go wrong for a person who prepares data or trains, and the exit code it has."""

from typing import ClassVar


class DataError(ValueError):
    """Files or shards cannot be used as they are; the message says what to do."""

    exit_code: ClassVar[int] = 3
