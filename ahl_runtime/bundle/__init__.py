"""The bundle: its archive, manifest and signature, and the calibrations that the device made for it."""
