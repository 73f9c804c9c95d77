"""How the world's objects and backgrounds look."""
