"""The commands of `ahl-runtime`, one file for each."""
