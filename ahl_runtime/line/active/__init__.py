"""The model in force, and the only way to change it."""
