"""The classes of the world: things that look unlike each other, sound, and have a name."""

CLASSES = (
    "bell",
    "drum",
    "bird",
    "dog",
    "tractor",
    "clock",
    "kettle",
    "fountain",
    "guitar",
    "telephone",
    "robot",
    "helicopter",
    "trumpet",
    "sheep",
    "rocket",
    "hammer",
)
"""Each is the word that is spoken, too."""
