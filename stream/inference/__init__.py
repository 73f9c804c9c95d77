"""Frames and audio become heatmaps: slots between threads, passes, hops."""
