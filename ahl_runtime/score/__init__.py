"""Score frames without a running line: one frame, a batch of files, a self-check, a picture."""
