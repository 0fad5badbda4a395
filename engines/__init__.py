"""Graphs, their ONNX export and the back ends that run them."""
