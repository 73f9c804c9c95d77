"""Heatmaps become pictures: on screen, and in Rerun."""
