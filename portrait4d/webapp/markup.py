"""Pieces of the page: pictures, films, downloads and messages as HTML. Whatever comes from outside is escaped."""

import base64
from html import escape

from torch import Tensor

from portrait4d.data.image_io import encode_image, resize_picture

_JPEG_QUALITY = 90


def notice(text: str = "", is_error: bool = False) -> str:
    """Return a message; screen readers speak errors at once. No text: nothing is shown."""
    if not text:
        return ""
    role, kind = ("alert", "notice error") if is_error else ("status", "notice")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'


def pictures(named: dict[str, Tensor], shown: str = "") -> str:
    """Return pictures (3, H, W) in [-1, 1] side by side, each with its name under it.

    Args:
        named: the pictures.
        shown: what they show, for programs that read the page.
    """
    figures = "".join(_figure(name, picture) for name, picture in named.items())
    return f'<div class="pictures" data-shown="{escape(shown)}">{figures}</div>'


def _figure(name: str, picture: Tensor) -> str:
    source = data_url(picture)
    return f'<figure><img src="{source}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'


def data_url(picture: Tensor, side: int | None = None) -> str:
    """Return a picture (3, H, W) in [-1, 1] as the JPEG address of an image, square of `side` pixels if given."""
    if side is not None:
        picture = resize_picture(picture, (side, side))
    data = base64.b64encode(encode_image(picture, "JPEG", _JPEG_QUALITY)).decode()
    return f"data:image/jpeg;base64,{data}"


def film(address: str, caption: str) -> str:
    """Return a film that plays in a loop, with its download."""
    return (
        f'<div class="film"><video src="results/{escape(address)}" controls autoplay loop muted playsinline></video>'
        f"<p>{escape(caption)} {download(address, 'Download the film')}</p></div>"
    )


def downloads(addresses: dict[str, str]) -> str:
    """Return download links: what each says, and its address."""
    links = " ".join(download(address, text) for text, address in addresses.items())
    return f'<p class="downloads">{links}</p>'


def download(address: str, text: str) -> str:
    """Return a link that saves the published file `token/name`."""
    return f'<a class="download" href="results/{escape(address)}" download>{escape(text)}</a>'
