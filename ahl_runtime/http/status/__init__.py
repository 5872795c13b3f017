"""The routes that show the line's status: state, events, metrics, probes, pictures."""
