"""Packing of FFHQ."""
