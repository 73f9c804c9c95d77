"""The papers' metrics, each a function of numbers."""
