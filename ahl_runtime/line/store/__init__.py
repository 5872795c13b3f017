"""What the line keeps: decisions, images, and the messages that sinks have not had yet."""
