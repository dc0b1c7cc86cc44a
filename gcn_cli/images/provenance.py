"""How an image was made, as a record in its file; names and digests of source files.

A record is a JSON object: a text chunk "gcn" of a PNG, the image description (EXIF) of JPEG, WebP,
AVIF and TIFF. Other formats hold none. Records name files without their folders.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from gcn_cli import strict_json

KEY = "gcn"
DESCRIPTION, SOFTWARE = 0x010E, 0x0131  # tags of EXIF and TIFF
WITH_RECORD = ("PNG", "TIFF", "JPEG", "WEBP", "AVIF")
"""Formats of Pillow whose files hold a record."""


class SourceFile(NamedTuple):
    """A file that something was made from."""

    name: str  # without its folder
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> "SourceFile":
        """The base name and the digest of a file."""
        with open(path, "rb") as file:
            return cls(Path(path).name, hashlib.file_digest(file, "sha256").hexdigest())


def without_folders(text: str) -> str:
    """A path without its folders; text without a path is unchanged."""
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] or text


def save_options(pillow_format: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Options of Pillow's `save` that write a record; none for formats without."""
    text, software = strict_json.dumps(record), str(record["software"])
    if pillow_format == "PNG":
        chunks = PngInfo()
        chunks.add_text("Software", software)
        chunks.add_text(KEY, text)
        return {"pnginfo": chunks}
    if pillow_format not in WITH_RECORD:
        return {}
    exif = PillowImage.Exif()
    exif[DESCRIPTION], exif[SOFTWARE] = text, software
    return {"exif": exif}


def vips_fields(record: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a libvips image that it writes to PNG and TIFF files as a record."""
    text = strict_json.dumps(record)
    png = {f"png-comment-0-{KEY}": text, "png-comment-1-Software": str(record["software"])}
    return {**png, "image-description": text}


def contradiction(path: str | Path, expected: Mapping[str, Any]) -> str | None:
    """How a file was made otherwise than an expected record says, in words; None if it was not.

    Of a file without a record only the size can differ: its format has none, or another program has
    written it. A width of None is any.
    """
    record = read_record(path)
    if record is None:
        if not Path(path).is_file():
            return "is no file"
        try:
            with PillowImage.open(path) as image:
                record = {**expected, "width": image.width, "height": image.height}
        except Exception:  # decoders raise exceptions of any type for damaged data
            return "is not a readable image"
    if record.get("model_sha256") != expected["model_sha256"]:
        return f"was made by another model ({record.get('model')}), or before it was trained again"
    for name in ("seed", "index"):
        if record.get(name) != expected[name]:
            return f"was made with {name} {record.get(name)}, not {expected[name]}"
    size, wanted = (f"{r.get('width')}x{r.get('height')}" for r in (record, expected))
    if expected["width"] is not None and size != wanted:
        return f"is {size}, not {wanted}"
    before, now = (dict(r.get("options") or {}) for r in (record, expected))
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    if not names and record.get("inputs") != expected.get("inputs"):
        names = ["input images"]
    return f"was made with other {', '.join(names)}" if names else None


def read_record(path: str | Path) -> dict[str, Any] | None:
    """The record in an image file; None if there is none, or the file is no image."""
    if not Path(path).is_file():  # a named pipe would be waited for
        return None
    try:
        with PillowImage.open(path) as image:
            text = image.info.get(KEY) or image.getexif().get(DESCRIPTION)
        record = json.loads(text) if isinstance(text, str) else None
    except Exception:  # decoders raise exceptions of any type for damaged data
        return None
    is_own = isinstance(record, dict) and str(record.get("software")).startswith("gcn ")
    return record if is_own else None
