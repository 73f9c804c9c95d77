"""A bundle on an NVIDIA GPU: by ONNX Runtime or by TensorRT, without torch."""
