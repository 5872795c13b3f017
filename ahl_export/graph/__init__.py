"""g as an ONNX graph, and what is done to the graph as a whole."""
