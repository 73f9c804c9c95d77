"""How the network travels: graphs, ONNX, parity, the bundle and the sessions that run it."""
