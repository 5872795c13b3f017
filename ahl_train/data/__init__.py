"""Images and their labels: data sets, splits, feedback, made images."""
