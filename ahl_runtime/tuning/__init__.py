"""What scoring costs on this device, and the session options that make it cost least."""
