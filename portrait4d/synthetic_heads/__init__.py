"""L6: open, formula-made heads that stand where licensed head models would."""
