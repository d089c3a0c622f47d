"""A numeric stand-in for the FLAME head model, used only to produce and check golden data.

It has FLAME's array names, shapes and kinematic tree (5023 vertices, 300 + 100 blend shapes, 5 joints)
but none of FLAME's data: an ellipsoid with two eyeball spheres and smooth, formula-made blend shapes.
`standin_arrays()` is deterministic: the mesh topology and region tables are read from standin.npz and
everything large is recomputed in float64 from formulas, then cast to float32.
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
HEAD, EYE = 3931, 546  # vertex counts: head first, then the left and the right eyeball
SHAPES, EXPRESSIONS, JOINTS = 300, 100, 5


def _waves(vertices, count, seed, amplitude):
    """Smooth vector fields (V, 3, count): sums of two plane waves with seeded frequencies."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(vertices), 3, count))
    for _ in range(2):
        frequency = rng.normal(size=(3, count)) * 18.0
        phase = rng.uniform(0, 2 * np.pi, size=(3, count))
        weight = rng.normal(size=(3, count))
        angle = vertices @ frequency  # (V, count)
        out += weight[None] * np.sin(angle[:, None, :] + phase[None])
    return out * amplitude


def standin_arrays():
    """Return a dict with FLAME's pickle keys: f, v_template, shapedirs, posedirs, J_regressor, weights, kintree_table."""
    table = np.load(HERE / "standin.npz")
    vertices = table["v_template"].astype(np.float64)
    head = np.arange(HEAD)
    left, right = np.arange(HEAD, HEAD + EYE), np.arange(HEAD + EYE, HEAD + 2 * EYE)

    decay = 1.0 / np.sqrt(1.0 + np.arange(SHAPES))
    shape = _waves(vertices, SHAPES, 11, 1.5e-3) * decay
    front = 1.0 / (1.0 + np.exp(-vertices[:, 2] * 60.0))  # expressions move the front of the head only
    decay = 1.0 / np.sqrt(1.0 + np.arange(EXPRESSIONS))
    expression = _waves(vertices, EXPRESSIONS, 12, 1.2e-3) * decay * front[:, None, None]
    expression[HEAD:] = 0.0

    regressor = np.zeros((JOINTS, len(vertices)))
    low = head[vertices[:HEAD, 1] < np.quantile(vertices[:HEAD, 1], 0.1)]
    regressor[0, low] = 1.0 / len(low)
    neck = head[(vertices[:HEAD, 1] < np.quantile(vertices[:HEAD, 1], 0.3)) & (vertices[:HEAD, 2] < 0.02)]
    regressor[1, neck] = 1.0 / len(neck)
    jaw = head[(np.abs(vertices[:HEAD, 1] + 0.02) < 0.02) & (np.abs(vertices[:HEAD, 2]) < 0.03)]
    regressor[2, jaw] = 1.0 / len(jaw)
    regressor[3, left] = 1.0 / EYE
    regressor[4, right] = 1.0 / EYE

    weights = np.zeros((len(vertices), JOINTS))
    above_neck = 1.0 / (1.0 + np.exp(-(vertices[:, 1] + 0.1) * 600.0))  # rigid with the neck joint above y = -0.09
    chin = np.exp(-(((vertices[:, 1] + 0.06) / 0.035) ** 2)) * front
    weights[:, 0] = 1.0 - above_neck
    weights[:, 2] = above_neck * chin * 0.9
    weights[:, 1] = above_neck - weights[:, 2]
    weights[HEAD:] = 0.0
    weights[left, 3] = 1.0
    weights[right, 4] = 1.0

    return {
        "f": table["faces"].astype(np.uint32),
        "v_template": vertices,
        "shapedirs": np.concatenate([shape, expression], axis=2),
        "posedirs": _waves(vertices, 9 * (JOINTS - 1), 13, 4e-4),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.int64),
    }
