"""Files of a Hugging Face model repository: names, sizes and sha256 as the hub tells them."""

import json
import os
import re
import urllib.error
import urllib.parse
from http.client import HTTPException

from portrait4d.files.download import DownloadError, RemoteFile, open_url

ENDPOINT_VARIABLE = "HF_ENDPOINT"
"""Environment variable that names a mirror of the hub."""

DEFAULT_ENDPOINT = "https://huggingface.co"


def hub_endpoint() -> str:
    """Return the hub's address without a slash at its end: $HF_ENDPOINT, or the public one."""
    return (os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/")


def list_repository(repository: str, revision: str = "main", timeout_s: float = 30.0) -> dict[str, RemoteFile]:
    """List the files of a model repository: {path: address, size, sha256 (of files that the hub stores as LFS)}.

    Raises:
        DownloadError: a malformed name, no such repository or revision, or a server that answers something else.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise DownloadError(f"--repo: expected OWNER/NAME, got {repository!r}")
    endpoint, mark = hub_endpoint(), urllib.parse.quote(revision, safe="")
    url: str | None = f"{endpoint}/api/models/{repository}/tree/{mark}?recursive=true"
    files: dict[str, RemoteFile] = {}
    while url is not None:
        entries, url = _read_page(url, endpoint, timeout_s)
        for entry in entries:
            if entry.get("type") != "file":
                continue
            path, large = entry["path"], entry.get("lfs") or {}
            address = f"{endpoint}/{repository}/resolve/{mark}/{urllib.parse.quote(path)}"
            files[path] = RemoteFile(address, large.get("size", entry.get("size")), large.get("oid"))
    return files


def find_in_repository(files: dict[str, RemoteFile], path: str) -> RemoteFile | None:
    """Return the file whose path shares the most last components with `path`, its name at least; None without one.

    Raises:
        DownloadError: several files fit equally well.
    """
    wanted = path.split("/")[::-1]
    scores = {}
    for candidate in files:
        parts = candidate.split("/")[::-1]
        equal = [a == b for a, b in zip(wanted, parts, strict=False)]
        scores[candidate] = equal.index(False) if False in equal else len(equal)
    best = max(scores.values(), default=0)
    found = [candidate for candidate, score in scores.items() if score == best]
    if best and len(found) > 1:
        raise DownloadError(f"{path}: several files of the repository fit: {', '.join(sorted(found)[:4])}")
    return files[found[0]] if best else None


def _read_page(url: str, endpoint: str, timeout_s: float) -> tuple[list[dict], str | None]:
    try:
        with open_url(url, timeout_s=timeout_s) as response:
            entries = json.load(response)
            link = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link", ""))
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server says {error.code} {error.reason}; check --repo") from error
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url}: cannot be reached ({error})") from error
    except ValueError as error:
        raise DownloadError(f"{url}: expected a list of files as JSON ({error})") from error
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("path"), str) for e in entries
    ):
        raise DownloadError(f"{url}: expected a list of files as JSON")
    following = urllib.parse.urljoin(url, link[1]) if link else None
    if following is not None and not following.startswith(endpoint + "/"):
        raise DownloadError(f"{url}: the list goes on at another server, {following}")
    return entries, following
