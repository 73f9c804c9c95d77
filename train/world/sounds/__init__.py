"""How the world's objects sound."""
