"""Run networks with ONNX Runtime."""
