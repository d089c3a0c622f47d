"""L2: what is where in space; no learnt weights."""
