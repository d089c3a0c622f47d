"""L0: errors users see, atomic writing, and a pickle reader that runs nothing. No torch."""
