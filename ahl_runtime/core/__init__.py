"""What the device's rooms share, and training with them: pixels, files, errors, the vocabulary."""
