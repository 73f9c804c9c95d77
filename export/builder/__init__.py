"""A checkpoint becomes a bundle: graphs, precision, parity, engines. Needs torch."""
