"""How the network lives: sources, rolling audio, pipeline, overlay, sinks. No torch here."""
