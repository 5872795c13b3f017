"""`ahl-runtime`: one file for each command."""
