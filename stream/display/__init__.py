"""Heatmaps become pictures: on screen, in a file, in Rerun."""
