"""L5: bytes on disk to typed arrays and back."""
