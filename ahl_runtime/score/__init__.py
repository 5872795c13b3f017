"""From pixels to a decision, without a line: one frame, a batch of files, a self-check, a picture."""
