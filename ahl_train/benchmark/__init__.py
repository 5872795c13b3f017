"""A grid of systems on a data set, its results and their tables."""
