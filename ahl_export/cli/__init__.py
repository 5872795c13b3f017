"""`ahl`: one file for each command."""
