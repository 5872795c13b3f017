"""Measure the time and memory of scoring on this device, and find the fastest session options."""
