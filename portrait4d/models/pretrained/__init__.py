"""L4: frozen third-party networks and where their weights come from."""
