"""The routes that score, read back, mark and change."""
