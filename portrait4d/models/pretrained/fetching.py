"""Fetch what `registry.py` lists into one assets folder, and say what is there and what is missing.

Head models with a registration of their own (FLAME, Basel Face Model) are never fetched: this says where to get them
and where to put them, and checks what was put there.
"""

import os
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scipy.io import loadmat, matlab

from portrait4d.files.download import Downloaded, Progress, RemoteFile, digest_file, download_file
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.home import expand_home
from portrait4d.files.model_hub import find_in_repository, list_repository
from portrait4d.geometry.flame_assets import load_flame_assets
from portrait4d.models.pretrained.registry import ASSETS_VARIABLE, EXTERNAL_WEIGHTS, PACKAGE_MODELS, ExternalWeights

_MATLAB_DAMAGE = (
    matlab.MatReadError,
    zlib.error,
    OSError,
    ValueError,
    TypeError,
    NotImplementedError,
    IndexError,
    KeyError,
)
_BFM_SHAPES = {"meanshape": (1, None), "idBase": (None, 80), "exBase": (None, 64), "tri": (None, 3)}


@dataclass(frozen=True)
class RegisteredAsset:
    """A file, or folder, that only a registered user may download.

    Attributes:
        title: what it is.
        path: its place below the assets folder.
        instructions: how to get it and where to put it.
        check: raises UserError unless the file or folder is right.
    """

    title: str
    path: str
    instructions: str
    check: Callable[[Path], None]


@dataclass(frozen=True)
class FetchRequest:
    """What to fetch.

    Attributes:
        assets: the folder.
        keys: of `EXTERNAL_WEIGHTS`; empty for all.
        repository: OWNER/NAME of the published model repository on the hub, None without one.
        revision: of the repository.
        addresses: key -> address, with `#sha256=HEX` at its end if known; goes before all else.
        accept_licences: the user has seen and accepted the licences.
    """

    assets: Path
    keys: Sequence[str] = ()
    repository: str | None = None
    revision: str = "main"
    addresses: dict[str, str] = field(default_factory=dict)
    accept_licences: bool = False


@dataclass(frozen=True)
class AssetState:
    """One line of a listing: `state` is "there", "missing" or "bad"; `note` says where, or what is wrong."""

    key: str
    title: str
    state: str
    place: Path
    note: str = ""


def resolve_assets_folder(folder: str | Path | None) -> Path:
    """Return the assets folder: `folder`, or else that of $PORTRAIT4D_ASSETS.

    Raises:
        UserError: neither is given.
    """
    chosen = folder or os.environ.get(ASSETS_VARIABLE)
    if not chosen:
        raise UserError(f"no assets folder: give --assets FOLDER, or set {ASSETS_VARIABLE}")
    return expand_home(chosen)


def list_assets(assets: Path, keys: Sequence[str] = ()) -> list[AssetState]:
    """Tell of assets whether they are in their places, below `assets` or `portrait4d/models`, and sound.

    Args:
        assets: the folder.
        keys: of `EXTERNAL_WEIGHTS` and `REGISTERED_ASSETS`; empty for all.

    Raises:
        UserError: an unknown key.
    """
    known = [*EXTERNAL_WEIGHTS, *REGISTERED_ASSETS]
    for key in keys:
        _require_key(key, known)
    states = []
    for key in dict.fromkeys(keys or known):
        if key in REGISTERED_ASSETS:
            states.append(_registered_state(key, REGISTERED_ASSETS[key], assets))
            continue
        weights = EXTERNAL_WEIGHTS[key]
        places = [root / weights.path for root in (assets, PACKAGE_MODELS)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            states.append(AssetState(key, weights.title, "missing", places[0], f"from {weights.source}"))
        else:
            problem = find_problem(found, weights)
            states.append(AssetState(key, weights.title, "bad" if problem else "there", found, problem))
    return states


def find_problem(path: Path, weights: ExternalWeights) -> str:
    """Return what is wrong with a file's size or sha256, or "" if nothing known is."""
    if weights.size is not None and path.stat().st_size != weights.size:
        return f"expected {weights.size} bytes, got {path.stat().st_size}"
    if weights.sha256 is not None and (found := digest_file(path)) != weights.sha256:
        return f"expected sha256 {weights.sha256}, got {found}"
    return ""


def choose_missing(request: FetchRequest) -> list[str]:
    """Return the requested keys whose files are not in the assets folder, or are wrong there.

    Raises:
        UserError: an unknown key, or one that is never fetched (with its instructions).
    """
    for key in [*request.keys, *request.addresses]:
        if key in REGISTERED_ASSETS:
            raise UserError(f"{key} is never fetched: {REGISTERED_ASSETS[key].instructions}")
        _require_key(key, EXTERNAL_WEIGHTS)
    chosen = []
    for key in dict.fromkeys(request.keys or EXTERNAL_WEIGHTS):
        place = request.assets / EXTERNAL_WEIGHTS[key].path
        if not place.is_file() or find_problem(place, EXTERNAL_WEIGHTS[key]):
            chosen.append(key)
    return chosen


def locate(request: FetchRequest, keys: Sequence[str]) -> dict[str, RemoteFile | None]:
    """Return where each key's file is on the net, None where nobody knows.

    A known sha256 and size of the registry go before those that the hub tells.

    Raises:
        DownloadError: the repository cannot be listed.
    """
    wants_repository = any(EXTERNAL_WEIGHTS[key].in_repository and key not in request.addresses for key in keys)
    hub = list_repository(request.repository, request.revision) if request.repository and wants_repository else {}
    located = {}
    for key in keys:
        weights = EXTERNAL_WEIGHTS[key]
        remote = find_in_repository(hub, weights.path) if weights.in_repository else None
        if key in request.addresses:
            remote = parse_address(request.addresses[key])
        elif remote is None and weights.url is not None:
            remote = RemoteFile(weights.url)
        if remote is not None:
            remote = RemoteFile(remote.url, weights.size or remote.size, weights.sha256 or remote.sha256)
        located[key] = remote
    return located


def parse_address(text: str) -> RemoteFile:
    """Split an address from the `#sha256=HEX` at its end.

    Raises:
        UserError: another scheme than http and https, or a malformed digest.
    """
    url, mark, digest = text.partition("#sha256=")
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{text}: expected an address that begins with https:// or http://")
    if mark and (len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef")):
        raise UserError(f"{text}: expected 64 hexadecimal digits after #sha256=")
    return RemoteFile(url, sha256=digest.lower() or None)


def describe_licences(keys: Sequence[str]) -> str:
    """Return the titles and licences of assets, a few lines each."""
    lines = []
    for key in keys:
        weights = EXTERNAL_WEIGHTS[key]
        lines.append(f"{key}: {weights.title}\n  from {weights.source}\n  licence: {weights.licence}")
    return "\n".join(lines)


def fetch_assets(
    request: FetchRequest, located: dict[str, RemoteFile | None], progress: Callable[[str], Progress]
) -> Iterator[tuple[str, Downloaded | UserError]]:
    """Download one file after the other and yield each one's result; a failure does not stop the others.

    Args:
        request: with `accept_licences`.
        located: from `locate`.
        progress: makes a progress function for a key.

    Raises:
        UserError: the licences are not accepted.
    """
    if not request.accept_licences:
        raise UserError("read the licences above and give --accept-licences if you accept them")
    for key, remote in located.items():
        weights = EXTERNAL_WEIGHTS[key]
        place = request.assets / weights.path
        if remote is None:
            hint = "give --repo OWNER/NAME, or " if weights.in_repository else ""
            remedy = f"{hint}give --url {key}=ADDRESS, or put it at {place} yourself"
            yield key, UserError(f"{key}: no address is known; it comes from {weights.source}; {remedy}")
            continue
        try:
            yield key, download_file(remote, place, progress(key))
        except UserError as error:
            yield key, error


def check_bfm(path: Path) -> None:
    """Check `BFM_model_front.mat` of Deep3DFaceRecon: its entries and shapes (preprocess-networks.md section 4.3).

    Raises:
        InputFileError: no MATLAB 5 file, or entries that are missing or of other shapes.
    """
    try:
        content = loadmat(path, variable_names=list(_BFM_SHAPES))
    except _MATLAB_DAMAGE as error:
        raise InputFileError(path, f"not a readable MATLAB file ({error})", "make it again") from error
    for name, shape in _BFM_SHAPES.items():
        found = getattr(content.get(name), "shape", None)
        if found is None or len(found) != 2 or any(w not in (None, f) for w, f in zip(shape, found, strict=True)):
            raise InputFileError(path, f"{name}: expected shape {shape}, got {found}", "make it again")
    if not content["meanshape"].shape[1] == len(content["idBase"]) == len(content["exBase"]):
        raise InputFileError(path, "meanshape, idBase, exBase: expected one number of vertices", "make it again")


def _require_key(key: str, known: Collection[str]) -> None:
    if key not in known:
        raise UserError(f"{key}: expected one of {', '.join(known)}")


def _check_flame(folder: Path) -> None:
    load_flame_assets(folder)


def _registered_state(key: str, asset: RegisteredAsset, assets: Path) -> AssetState:
    places = [root / asset.path for root in (assets, PACKAGE_MODELS)]
    place = next((place for place in places if place.exists()), None)
    if place is None:
        return AssetState(key, asset.title, "missing", places[0], asset.instructions)
    try:
        asset.check(place)
    except UserError as error:
        return AssetState(key, asset.title, "bad", place, str(error))
    return AssetState(key, asset.title, "there", place)


REGISTERED_ASSETS = {
    "flame": RegisteredAsset(
        title="FLAME head model",
        path="FLAME",
        instructions="register at https://flame.is.tue.mpg.de, accept its licence and download 'FLAME 2020' and 'FLAME "
        "Vertex Masks'; put generic_model.pkl into FLAME/geometry/ and FLAME_masks.pkl into FLAME/mask/ of the assets "
        "folder, and landmark_embedding_with_eyes.npy of the published Portrait4D repository (its models/FLAME) into "
        "FLAME/geometry/",
        check=_check_flame,
    ),
    "bfm": RegisteredAsset(
        title="Basel Face Model for preprocessing",
        path="facerecon/bfm/BFM_model_front.mat",
        instructions="register for the Basel Face Model 2009 with the University of Basel and accept its licence "
        "(research only); make BFM_model_front.mat with the instructions of Deep3DFaceRecon and put it into "
        "facerecon/bfm/ of the assets folder",
        check=check_bfm,
    ),
}
"""key -> asset that is never fetched."""
