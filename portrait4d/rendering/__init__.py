"""L3: from rays to pixels, for any radiance field given as a function of points."""
