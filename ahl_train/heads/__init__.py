"""Base models, one file each. To add one, add a file (docs/how-to/own-head.md)."""
