"""What is measured, a file each; a section runs in a process of its own and fails alone."""
