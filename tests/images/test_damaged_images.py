"""Damaged image files are refused in one line, or read."""

import io
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from gcn_cli.images import read_image
from tests.damage import damaged, message_of

ROUNDS = int(os.environ.get("GCN_FUZZ", "60")) // 5


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
def test_damaged_images_are_refused_or_read(file_format: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((24, 20), 60).convert("RGB").save(buffer, file_format)
    data, path = buffer.getvalue(), tmp_path / "image"
    for seed in range(max(1, ROUNDS)):
        path.write_bytes(damaged(data, random.Random(seed), 80))
        message_of(lambda found: read_image(str(found)), path)
