"""A synthetic world: clips, films and broadcasts whose every pixel and second is known."""
