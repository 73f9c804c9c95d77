"""A run: put together from options, its loops and its sinks."""
