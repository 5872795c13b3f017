"""What the packages of the device and training share: pixels, files, errors, the basic types."""
