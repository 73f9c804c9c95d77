"""Audio blocks become a rolling window of 16 kHz, normalised by what was lately loud."""
