"""What can go wrong with a file of pictures and sound.

MediaError        it cannot be read, or lacks what is asked of it
"""


class MediaError(Exception):
    """One line: the file, and what is wrong with it."""
