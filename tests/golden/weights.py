"""Deterministic weights for golden data: a tensor is a function of its reference name, shape, mean and std.

A manifest (manifest-*.json) lists under "filled" [name, shape, mean, std] for every learnable tensor, running average
and constant-noise buffer of a reference model; `fill` turns it into the state dict that gave the golden outputs.
Its "derived" list [name, shape, dtype] names the other buffers (filters, head-model arrays, counters), whose values
follow from their definition.
"""

import json
import zlib

import numpy as np


def tensor(name, shape, mean, std):
    """Return float32 normal noise (mean, std) that depends only on `name` and `shape`."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return np.asarray(mean + std * noise, dtype=np.float32)


def fill(manifest_path):
    """Return {reference name: float32 array} for every tensor of the manifest's "filled" list."""
    with open(manifest_path) as file:
        manifest = json.load(file)
    return {name: tensor(name, shape, mean, std) for name, shape, mean, std in manifest["filled"]}


def image(name, height, width, channels=3):
    """Return a smooth float32 test image (channels, height, width) in [-1, 1] that depends only on `name`."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    out = np.zeros((channels, height, width))
    for _ in range(12):
        fy, fx = rng.normal(size=2) * 6
        out += rng.normal(size=(channels, 1, 1)) * np.sin(2 * np.pi * (fy * y + fx * x) + rng.uniform(0, 2 * np.pi))
    return np.tanh(out / 3).astype(np.float32)
