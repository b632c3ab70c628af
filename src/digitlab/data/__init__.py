"""Images and labels: sources, splits, preprocessing, batches."""
