"""Scripts; nothing imports this package."""
