"""Fit the head model to detected landmarks: one picture each, or clips with one identity (flame-fitting.md §5-6)."""
