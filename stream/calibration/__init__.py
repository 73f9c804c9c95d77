"""What is measured before a run: the offset of picture and audio, the noise of a room."""
