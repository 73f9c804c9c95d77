"""Weights as files: read from ours and the authors', checked, written whole or not at all."""
