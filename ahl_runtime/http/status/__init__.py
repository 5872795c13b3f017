"""The routes that say how the line is doing: state, events, metrics, probes, pictures."""
