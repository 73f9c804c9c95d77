"""Browsers that look at a run, and the one that may be its camera and microphone."""
