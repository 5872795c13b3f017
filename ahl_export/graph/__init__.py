"""g as an ONNX graph, and changes to the graph as a whole."""
