"""A bundle runs: its folder, its manifest and the sessions. No torch here."""
