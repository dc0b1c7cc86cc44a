"""Every format that Pillow writes and reads, in every mode: right values, or a refusal.

python -m tests.images.test_formats    # a table: each is learned, sampled and written
"""

import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

import gcn_cli as gcn
from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.images import TextureMap
from gcn_cli.images.image import from_pillow
from gcn_cli.images.reading import NO_PIXELS
from gcn_cli.images.writing import FORMATS, losses
from tests.small import SMALL_TEXTURE

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


def saved_modes(image_format: str, suffix: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """A file in every mode that Pillow writes in a format."""
    modes = MODES[:-2] if image_format in ("AVIF", "GIF", "WEBP") else MODES
    for mode in modes:  # Pillow clips grays of more than 8 bits in some formats
        data = io.BytesIO()
        try:
            drawn(mode).save(data, image_format)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # Pillow does not write this mode
        path = folder / f"{mode.replace(';', '')}{suffix}"
        path.write_bytes(data.getvalue())
        yield mode, path


@pytest.mark.parametrize(("image_format", "suffix"), formats().items())
def test_every_mode_of_a_format_is_read_or_refused(
    image_format: str, suffix: str, tmp_path: Path
) -> None:
    for mode, path in saved_modes(image_format, suffix, tmp_path):
        image = drawn(mode)
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


def learned(path: Path) -> tuple[TextureMap, torch.Tensor]:
    """What a model learns of a file, and a sample of it."""
    model = gcn.train(path, iterations=3, alpha="channel", **SMALL_TEXTURE)
    (sample,) = model.synthesize(size=(24, 20), steps=2, kind="torch")
    return model.maps[0], sample


def written(texture_map: TextureMap, sample: torch.Tensor, target: Path) -> images.Image | None:
    """A sample as it is read from a file; None if the format is refused."""
    try:
        images.check_format(str(target), (20, 24), texture_map)
    except InputError:
        return None
    images.write(sample, str(target), texture_map.bit_depth)
    return images.read_image(str(target))


LEARNED = {
    "1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA",
    "CMYK": "RGB", "I;16": "L",
}  # fmt: skip
"""The mode of samples of each mode of a file."""


@pytest.mark.parametrize("mode", LEARNED)
def test_samples_of_every_mode_are_written_in_every_format_that_holds_them(
    mode: str, tmp_path: Path
) -> None:
    path = dict(saved_modes("TIFF", ".tif", tmp_path))[mode]
    texture_map, sample = learned(path)
    assert texture_map.mode == LEARNED[mode]
    assert texture_map.bit_depth == (16 if mode == "I;16" else 8)
    for written_suffix, file_format in FORMATS.items():
        target = tmp_path / f"sample{written_suffix}"
        back = written(texture_map, sample, target)
        holds_alpha = file_format.alpha or "A" not in texture_map.mode
        holds_color = file_format.color or texture_map.mode in ("L", "LA")
        assert (back is not None) == (holds_alpha and holds_color), written_suffix
        if back is None:
            continue
        assert back.size == (20, 24)
        gray = back.mode.startswith("L")
        assert gray == (texture_map.mode.startswith("L") and file_format.gray), written_suffix
        assert back.has_alpha == texture_map.mode.endswith("A"), written_suffix
        kept = "16 bits a channel" not in losses(str(target), texture_map)
        assert back.bit_depth == (texture_map.bit_depth if kept else 8), written_suffix
        expected = images.Image(sample.clamp(0, 255), texture_map.mode, 32).to_mode(back.mode)
        error = float((back.pixels - expected).abs().max())
        assert error <= (0.51 if file_format.exact else 40), written_suffix


def table() -> None:
    """Print what every format and mode is learned as, and how samples are written."""
    logging.disable()
    print("|", " | ".join(["file", "mode", "learned as", *FORMATS]), "|")
    print("|", "--- | " * (3 + len(FORMATS)))
    for image_format, suffix in formats().items():
        with tempfile.TemporaryDirectory() as folder:
            for mode, path in saved_modes(image_format, suffix, Path(folder)):
                cells = [image_format, mode]
                try:
                    texture_map, sample = learned(path)
                except InputError as error:
                    print("|", " | ".join([*cells, str(error).partition(": ")[2]]), "|")
                    continue
                cells.append(f"{texture_map.mode} {texture_map.bit_depth}")
                for target in (
                    Path(folder) / f"sample{written_suffix}" for written_suffix in FORMATS
                ):
                    back = written(texture_map, sample, target)
                    cells.append("refused" if back is None else f"{back.mode} {back.bit_depth}")
                print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    table()
