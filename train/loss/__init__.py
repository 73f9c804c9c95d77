"""Features become a loss: similarity, pooling, regularizers, mix-and-separate."""
