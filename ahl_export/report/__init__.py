"""The demo and its report, and plots of a calibration."""
