"""Portrait4D: one portrait photo to an animatable 4D head."""

__version__ = "0.1.0"
