"""L7: the training loop, its tasks, and everything around a run."""
