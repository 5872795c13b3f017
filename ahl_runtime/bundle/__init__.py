"""The bundle: its archive, manifest and signature, and the device's own calibrations beside it."""
