"""Images and their labels: data sets, splits, feedback, synthetic images."""
