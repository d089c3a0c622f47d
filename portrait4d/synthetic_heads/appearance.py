"""Draw a person of the open head world from one integer seed: shape, skin, eyes, hair, clothes, light, background.

Colours are linear RGB in [0, 1] unless a name says sRGB. Everything follows from the seed.
"""

from dataclasses import dataclass

import numpy as np

from portrait4d.geometry.head_params import SHAPE_DIM
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.strands import HairCut

Colour = tuple[float, float, float]

_SKIN_SRGB = np.array(
    [
        (244, 212, 194),
        (236, 196, 172),
        (224, 178, 148),
        (205, 154, 122),
        (180, 128, 94),
        (148, 99, 70),
        (116, 76, 54),
        (88, 57, 42),
    ]
)
_HAIR = {  # linear
    "black": (0.012, 0.010, 0.010),
    "dark_brown": (0.035, 0.020, 0.013),
    "brown": (0.085, 0.045, 0.024),
    "light_brown": (0.17, 0.095, 0.05),
    "auburn": (0.17, 0.050, 0.020),
    "ginger": (0.36, 0.13, 0.040),
    "blonde": (0.47, 0.31, 0.13),
    "pale_blonde": (0.62, 0.48, 0.27),
    "grey": (0.30, 0.29, 0.28),
    "white": (0.62, 0.60, 0.57),
}
_DYED = ((0.26, 0.02, 0.07), (0.03, 0.09, 0.22), (0.02, 0.15, 0.14), (0.15, 0.05, 0.22), (0.36, 0.09, 0.17))
_IRIS = ((0.07, 0.035, 0.015), (0.14, 0.07, 0.025), (0.20, 0.13, 0.05), (0.13, 0.17, 0.07), (0.10, 0.20, 0.30))
_IRIS += ((0.20, 0.27, 0.32), (0.06, 0.13, 0.25))
_CLOTH = ((0.02, 0.02, 0.025), (0.04, 0.07, 0.16), (0.30, 0.03, 0.04), (0.03, 0.12, 0.08), (0.45, 0.42, 0.38))
_CLOTH += ((0.42, 0.22, 0.05), (0.10, 0.17, 0.32), (0.16, 0.15, 0.16), (0.38, 0.12, 0.18), (0.06, 0.20, 0.24))
_BACKDROP = ((0.20, 0.26, 0.34), (0.34, 0.26, 0.30), (0.20, 0.30, 0.24), (0.38, 0.32, 0.24), (0.11, 0.11, 0.14))
_BACKDROP += ((0.36, 0.36, 0.38), (0.16, 0.13, 0.20), (0.44, 0.40, 0.34), (0.10, 0.20, 0.24), (0.40, 0.24, 0.16))


@dataclass(frozen=True)
class Face:
    """Skin, eyes and small features. `*_amount` are 0 .. 1 strengths; colours are linear RGB."""

    skin: Colour
    lips: Colour
    blush_amount: float
    freckle_amount: float
    under_eye_amount: float
    age: float
    stubble_amount: float
    make_up_amount: float
    iris: Colour
    brow: Colour
    brow_thickness: float
    brow_length: float
    lash_length: float
    skin_seed: float


@dataclass(frozen=True)
class Light:
    """Directions point from the head to the lamp (world axes); colours are linear RGB with the lamp's strength."""

    key: tuple[float, float, float]
    key_colour: Colour
    fill: tuple[float, float, float]
    fill_colour: Colour
    rim: tuple[float, float, float]
    rim_colour: Colour
    sky: Colour
    ground: Colour


@dataclass(frozen=True)
class Backdrop:
    """A two-colour gradient along `angle_rad`, with `discs` blurred discs."""

    first: Colour
    second: Colour
    angle_rad: float
    discs: int
    seed: int


@dataclass(frozen=True)
class Appearance:
    """One person; see the parts. `shape` (300,) holds standard-normal identity coefficients."""

    seed: int
    shape: np.ndarray
    feminine: bool
    face: Face
    hair: HairCut | None
    hair_name: str
    hair_colour: Colour
    beard: str
    beard_length: float
    glasses: str
    cloth: Colour
    neckline: str
    light: Light
    backdrop: Backdrop


def sample_appearance(seed: int) -> Appearance:
    """Draw the person of a seed; equal seeds give equal persons.

    Raises:
        ValueError: if the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    rng = np.random.default_rng([seed, 71])
    feminine = bool(rng.random() < 0.5)
    age = float(np.clip(rng.beta(1.6, 2.6) + 0.05, 0, 1))
    tone = float(rng.uniform(0, 7))
    hair_name = _sample_hair_name(rng, feminine, age)
    colour = _sample_hair_colour(rng, tone, age)
    beard = "" if feminine else str(rng.choice(["", "", "", "full", "goatee", "moustache", "chin_strap"]))
    return Appearance(
        seed=seed,
        shape=sample_shape(rng, feminine, age),
        feminine=feminine,
        face=_sample_face(rng, feminine, age, tone, colour),
        hair=hair_cut(hair_name, rng, 0.0 if feminine else max(0.0, age - 0.3) * rng.uniform(0, 34)),
        hair_name=hair_name,
        hair_colour=colour,
        beard=beard,
        beard_length=float(rng.choice([5.0, 8.0, 14.0, 24.0], p=[0.35, 0.35, 0.2, 0.1])),
        glasses=str(rng.choice(["", "round", "square", "wide"], p=[0.84, 0.06, 0.05, 0.05])),
        cloth=_jitter(rng, _CLOTH[rng.integers(len(_CLOTH))]),
        neckline=str(rng.choice(["crew", "v", "scoop", "high"], p=[0.4, 0.25, 0.15, 0.2])),
        light=_sample_light(rng, tone),
        backdrop=_sample_backdrop(rng),
    )


def sample_shape(rng: np.random.Generator, feminine: bool, age: float) -> np.ndarray:
    """Draw identity coefficients (300,): sex and age in slots 0 and 1, the named features standard normal."""
    count = len(open_head_extras().shape_names)
    shape = np.zeros(SHAPE_DIM, np.float32)
    shape[:count] = np.clip(rng.normal(0, 1, count), -2.1, 2.1)
    shape[0] = (1 if feminine else -1) * rng.uniform(0.45, 1.25)
    shape[1] = 2.2 * age - 0.7
    return shape


def _sample_face(rng: np.random.Generator, feminine: bool, age: float, tone: float, hair: Colour) -> Face:
    skin = skin_colour(tone) * rng.uniform(0.94, 1.05, 3)
    dark = tone / 7
    lips = skin * (0.76, 0.43, 0.47) + np.array([0.015, 0.0, 0.004])
    make_up = float(feminine and rng.random() < 0.65) * rng.uniform(0.3, 1)
    lipstick = np.array([(0.42, 0.05, 0.07), (0.40, 0.10, 0.13), (0.30, 0.06, 0.12)][rng.integers(3)])
    lips = lips + 0.6 * make_up * (lipstick * (0.3 + 1.4 * skin) - lips)
    iris = _IRIS[rng.integers(2) if tone > 4 else rng.integers(len(_IRIS))]
    brow = np.array(hair) * 0.62 + 0.04 * skin
    brow = brow * min(1.0, (0.19 - 0.12 * dark) / brow.max())
    return Face(
        skin=_colour(skin),
        lips=_colour(lips),
        blush_amount=float(rng.uniform(0.35, 1.0) * (1 - 0.5 * dark)),
        freckle_amount=float((rng.random() < 0.3) * rng.uniform(0.3, 1) * (tone < 3.5)),
        under_eye_amount=float(0.15 + 0.5 * age * rng.uniform(0.5, 1.3)),
        age=age,
        stubble_amount=0.0 if feminine else float((rng.random() < 0.55) * rng.uniform(0.25, 1)),
        make_up_amount=make_up,
        iris=_jitter(rng, iris),
        brow=_colour(brow),
        brow_thickness=float(rng.uniform(0.55, 0.85) if feminine else rng.uniform(0.75, 1.25)),
        brow_length=float(rng.uniform(6, 8.5)),
        lash_length=float(rng.uniform(7.5, 10) + 2 * make_up if feminine else rng.uniform(5, 7.5)),
        skin_seed=float(rng.uniform(0, 100)),
    )


def skin_colour(tone: float) -> np.ndarray:
    """Return linear RGB (3,) of a skin tone from 0 (palest) to 7 (darkest)."""
    place = np.arange(len(_SKIN_SRGB))
    srgb = np.array([np.interp(tone, place, _SKIN_SRGB[:, k]) for k in range(3)]) / 255
    return srgb**2.2


_FEMININE_STYLES = {
    "long": 4,
    "wavy": 4,
    "bob": 4,
    "bun": 2.5,
    "ponytail": 2.5,
    "curly": 2,
    "afro": 1,
    "pixie": 2,
    "fringe": 3,
}
_MASCULINE_STYLES = {"short": 4, "crop": 3, "quiff": 3, "side_part": 3, "slick": 2, "buzz": 2, "bald": 2, "curly": 1.5}
_MASCULINE_STYLES |= {"afro": 1, "long": 0.7, "wavy": 0.7, "mohawk": 0.35, "messy": 2}


def _sample_hair_name(rng: np.random.Generator, feminine: bool, age: float) -> str:
    styles = dict(_FEMININE_STYLES if feminine else _MASCULINE_STYLES)
    if not feminine:
        styles["bald"] *= 0.4 + 2.5 * age
    names, weights = list(styles), np.array(list(styles.values()))
    return str(rng.choice(names, p=weights / weights.sum()))


def hair_cut(name: str, rng: np.random.Generator, recession: float = 0.0) -> HairCut | None:
    """Return the cut of a style with natural variation; None for "bald" and "buzz", which are painted.

    Raises:
        ValueError: if there is no such style.
    """
    if name in ("bald", "buzz"):
        return None
    part = float(rng.choice([-1, 1]) * rng.uniform(6, 26))
    size = float(rng.uniform(0.85, 1.2))
    cuts = {
        "short": HairCut("whorl", 32, 16, lift=0.25, thickness=8, gravity=0.12, fade=0.4, width=1.35),
        "crop": HairCut("whorl", 19, 8, lift=0.3, thickness=5, gravity=0.1, fade=0.4, width=1.15),
        "messy": HairCut(
            "whorl", 46, 24, lift=0.55, thickness=13, gravity=0.12, curl=2.2, pitch=2.2, fade=0.3, width=1.5
        ),
        "quiff": HairCut("up", 52, 14, lift=0.5, thickness=15, gravity=0.0, fade=0.45, width=1.4),
        "mohawk": HairCut("up", 58, 5, lift=0.95, thickness=6, gravity=0.0, fade=0.8, width=1.5),
        "side_part": HairCut("part", 62, 24, 0.16, 11, gravity=0.22, part=part * 1.5, fade=0.4, width=1.5),
        "slick": HairCut("back", 74, 40, lift=0.08, thickness=9, gravity=0.06, fade=0.25, width=1.7),
        "pixie": HairCut("part", 58, 30, lift=0.2, thickness=11, gravity=0.3, part=part * 1.3, fringe=36, fade=0.2),
        "bob": HairCut("part", 165, 128, lift=0.16, thickness=15, gravity=0.75, part=part, width=2.3),
        "fringe": HairCut("part", 185, 160, lift=0.16, thickness=14, gravity=0.75, part=2.0, fringe=52, width=2.3),
        "long": HairCut("part", 290, 245, lift=0.14, thickness=14, gravity=0.8, part=part, width=2.5),
        "wavy": HairCut(
            "part", 275, 225, lift=0.2, thickness=18, gravity=0.72, curl=5.0, pitch=1.7, part=part, width=2.6
        ),
        "curly": HairCut("whorl", 62, 50, lift=0.6, thickness=22, gravity=0.3, curl=4.6, pitch=5.5, width=2.0),
        "afro": HairCut("whorl", 48, 40, lift=1.0, thickness=40, gravity=0.0, curl=3.8, pitch=8.0, width=2.1),
        "bun": HairCut("bun", 120, 130, lift=0.06, thickness=7, gravity=0.0),
        "ponytail": HairCut("pony", 130, 130, lift=0.06, thickness=7, gravity=0.0),
    }
    if name not in cuts:
        raise ValueError(f"hair style: expected bald, buzz, {', '.join(cuts)}, got {name}")
    cut = vars(cuts[name]) | {"recession": recession}
    if name not in ("bun", "ponytail"):
        cut |= {"length_top": cut["length_top"] * size, "length_side": cut["length_side"] * size}
    return HairCut(**cut)


def _sample_hair_colour(rng: np.random.Generator, tone: float, age: float) -> Colour:
    if rng.random() < 0.03:
        return _jitter(rng, _DYED[rng.integers(len(_DYED))])
    if rng.random() < np.clip(1.5 * (age - 0.42), 0, 0.75):
        return _jitter(rng, _HAIR["white" if rng.random() < age - 0.25 else "grey"])
    names = list(_HAIR)[:8]
    fair = np.clip(1 - tone / 4, 0.02, 1)
    weights = np.array([2.2, 2.6, 2.4 * fair, 1.6 * fair, 1.2 * fair, 1.0 * fair, 1.8 * fair, 1.0 * fair])
    return _jitter(rng, _HAIR[str(rng.choice(names, p=weights / weights.sum()))])


def _sample_light(rng: np.random.Generator, tone: float) -> Light:
    azimuth = np.radians(rng.uniform(18, 58)) * rng.choice([-1, 1])
    warm = rng.uniform(-0.1, 0.1)
    exposure = (
        (1.0 + 0.42 * (tone / 7) ** 1.2) * float(np.interp(tone, [0, 2.5], [0.78, 1.0])) * rng.uniform(0.92, 1.08)
    )
    strength = rng.uniform(1.15, 1.6) * exposure
    sky = rng.uniform(0.30, 0.42) * exposure
    rim = rng.uniform(0.3, 1.5) * exposure

    def direction(azimuth_rad: float, elevation_deg: float) -> tuple[float, float, float]:
        e = np.radians(elevation_deg)
        return (float(np.sin(azimuth_rad) * np.cos(e)), float(np.sin(e)), float(np.cos(azimuth_rad) * np.cos(e)))

    return Light(
        key=direction(azimuth, rng.uniform(18, 44)),
        key_colour=_colour(strength * np.array([1 + warm, 1.0, 1 - warm]), limit=9),
        fill=direction(-azimuth * 1.1, rng.uniform(0, 20)),
        fill_colour=_colour(rng.uniform(0.22, 0.45) * exposure * np.array([1 - warm, 1.0, 1 + warm]), limit=9),
        rim=direction(-np.sign(azimuth) * np.radians(rng.uniform(135, 160)), rng.uniform(15, 45)),
        rim_colour=_colour(rim * np.array([1 - warm, 1.0, 1 + 1.5 * warm]), limit=9),
        sky=_colour(sky * np.array([0.96, 1.0, 1.06]), limit=9),
        ground=_colour(0.45 * sky * np.array([1.1, 1.0, 0.9]), limit=9),
    )


def _sample_backdrop(rng: np.random.Generator) -> Backdrop:
    first = np.array(_jitter(rng, _BACKDROP[rng.integers(len(_BACKDROP))]))
    second = first * rng.uniform(0.35, 0.75) + 0.12 * np.array(_BACKDROP[rng.integers(len(_BACKDROP))])
    discs = int(rng.integers(5, 16)) if rng.random() < 0.5 else 0
    return Backdrop(_colour(first), _colour(second), float(rng.uniform(0, 2 * np.pi)), discs, int(rng.integers(2**31)))


def _jitter(rng: np.random.Generator, colour: Colour) -> Colour:
    return _colour(np.array(colour) * rng.uniform(0.82, 1.2) * rng.uniform(0.93, 1.07, 3))


def _colour(values: np.ndarray, limit: float = 1.0) -> Colour:
    return tuple(float(v) for v in np.clip(values, 0, limit))
