"""Cameras that need a driver library: one file for each kind, and what it needs of the library."""
