"""Image files as tests compare them, and JSON as strict programs read it."""

import io
import json
import struct
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from gcn_cli import images


def read(path: Path | str, mode: str = "RGB") -> Tensor:
    """Pixels (C, H, W) in 0..255."""
    return images.read_image(str(path)).to_mode(mode)


def values_of(file: Path | bytes) -> bytes:
    """The values of an image file: its metadata may differ."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        return image.tobytes()


def strict_json(text: str | bytes) -> Any:
    """The values of a JSON text. Raises ValueError for Infinity and NaN, which Python accepts."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def check_json_files(folder: Path, newer_than: float = 0) -> int:
    """Parse the JSON files and model files that were written after a time; returns their number."""
    count = 0
    for path in folder.rglob("*"):
        suffix = path.suffix
        if suffix not in (".json", ".jsonl", ".safetensors") or path.stat().st_mtime < newer_than:
            continue
        data, count = path.read_bytes(), count + 1
        if suffix == ".safetensors":
            header = strict_json(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
            strict_json(header["__metadata__"]["gcn"])
        for text in data.splitlines() if suffix == ".jsonl" else [data] * (suffix == ".json"):
            strict_json(text)
    return count
