"""Carry Basel Face Model coefficients to FLAME: by a small network, or by fitting meshes (flame-fitting.md §3-4)."""
