"""Cameras, microphones and files, supervised, on one clock."""
