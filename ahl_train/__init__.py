"""The workstation: from images to the unified model g."""
