"""The store of a line: decisions, images, and the messages that sinks have not received yet."""
