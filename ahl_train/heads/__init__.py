"""Base models: one file each; adding another is adding one file (docs/how-to/own-head.md)."""
