"""L4: networks, one per file: config dataclass in, typed output out; checkpoints."""
