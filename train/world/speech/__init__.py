"""How the world's objects are named, by espeak-ng."""
