"""L6: statistics of picture features, and distances between sets of pictures."""
