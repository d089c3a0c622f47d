"""Packing of VFHQ."""
