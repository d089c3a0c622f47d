"""L0: configuration as frozen dataclasses. No torch."""
