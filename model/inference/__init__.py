"""Export the network to ONNX and run it with ONNX Runtime."""
