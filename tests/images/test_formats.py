"""Every format that Pillow writes and reads, in every mode: right values, or a refusal."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.images.image import from_pillow
from gcn_cli.images.reading import NO_PIXELS

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "F")
LOSSY = {"AVIF": 8, "GIF": 12, "JPEG": 8, "JPEG2000": 2, "MPO": 8, "WEBP": 8}  # gray levels
NOT_32_PIXELS = {"ICNS", "IM"}  # icons are resized; IM is on its way out of Pillow
SIDE = 32


def formats() -> dict[str, str]:
    """A suffix for each format that Pillow writes and reads."""
    suffixes = PillowImage.registered_extensions()
    known = {name: suffix for suffix, name in suffixes.items() if name in PillowImage.OPEN}
    written = set(known) & set(PillowImage.SAVE) - NO_PIXELS - NOT_32_PIXELS
    return {name: known[name] for name in sorted(written)}


def drawn(mode: str) -> PillowImage.Image:
    """Smooth colors; in modes with alpha, a transparent corner."""
    down, across = np.mgrid[:SIDE, :SIDE] * (255 / SIDE)
    color = PillowImage.fromarray(np.dstack([across, down, 255 - across]).astype(np.uint8))
    if mode in ("I;16", "F"):
        return PillowImage.fromarray((down * 257).astype(np.uint16 if mode == "I;16" else "f4"))
    if mode not in ("LA", "PA", "RGBA"):
        return color.convert(mode)
    alpha = PillowImage.new("L", color.size, 255)
    alpha.paste(0, (0, 0, 8, 8))
    if mode == "PA":
        color.putalpha(alpha)
        return color.quantize(64).convert("PA")
    color = color.convert(mode[:-1])
    color.putalpha(alpha)
    return color


def colors(image: PillowImage.Image, *, with_alpha: bool) -> torch.Tensor:
    """Colors (3, H, W) in 0..255, composited on white if the file has alpha."""
    if image.mode == "I;16":
        return torch.from_numpy(np.array(image, dtype=np.float32)).expand(3, -1, -1) / 257
    if not with_alpha:
        return from_pillow(image.convert("RGB"))
    rgba = image.convert("RGBA")
    white = PillowImage.new("RGBA", image.size, "white")
    return from_pillow(PillowImage.alpha_composite(white, rgba).convert("RGB"))


@pytest.mark.parametrize(("image_format", "suffix"), formats().items())
def test_every_mode_of_a_format_is_read_or_refused(
    image_format: str, suffix: str, tmp_path: Path
) -> None:
    modes = MODES[:-2] if image_format in ("AVIF", "GIF", "WEBP") else MODES
    for mode in modes:  # Pillow clips grays of more than 8 bits in some formats
        image, data = drawn(mode), io.BytesIO()
        try:
            image.save(data, image_format)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # Pillow does not write this mode
        path = tmp_path / f"{mode.replace(';', '')}{suffix}"
        path.write_bytes(data.getvalue())
        if mode == "F":
            with pytest.raises(
                InputError, match=r"^[^\n]+: grays with fractions have no scale; .*$"
            ):
                images.read_image(str(path))
            continue
        read = images.read_image(str(path))
        assert read.size == (SIDE, SIDE), mode
        assert read.bit_depth == (16 if mode == "I;16" else 8), mode
        errors = read.to_mode("RGB") - colors(image, with_alpha=read.has_alpha)
        error = float(torch.nn.functional.avg_pool2d(errors, 8).abs().max())  # without dithering
        assert error <= LOSSY.get(image_format, 0.6), f"{mode}: {error:.1f}"
