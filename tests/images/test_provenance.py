"""Records of how images were made: in every format that holds them, without folders."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage

from gcn_cli import images
from gcn_cli.images import SourceFile, read_record
from gcn_cli.images.provenance import WITH_RECORD, contradiction, without_folders

RECORD = {
    "software": "gcn 1.0",
    "command": "gcn synthesize -o 'caf\udce9 1.png'",
    "model": "bark",
    "model_sha256": "ab" * 32,
    "sources": [{"name": "é.png", "sha256": "00"}],
    "options": {"steps": 4},
    "seed": 3,
    "index": 1,
    "width": 7,
    "height": 9,
}


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_records_change_no_pixel(mode: str, bit_depth: int, tmp_path: Path) -> None:
    pixels = 255 * torch.rand(len(mode), 9, 7, generator=torch.Generator().manual_seed(0))
    for suffix, file_format in images.FORMATS.items():
        plain, marked = (str(tmp_path / f"{name}{suffix}") for name in ("plain", "marked"))
        holds = mode == "L" or file_format.color
        if not holds or (mode.endswith("A") and not file_format.alpha):
            continue
        images.write(pixels, plain, bit_depth, dpi=300)
        images.write(pixels, marked, bit_depth, dpi=300, record=RECORD)
        before, after = (images.read_image(path) for path in (plain, marked))
        assert torch.equal(after.pixels, before.pixels)
        assert (after.mode, after.bit_depth, after.dpi) == (
            before.mode,
            before.bit_depth,
            before.dpi,
        )
        assert read_record(plain) is None
        assert read_record(marked) == (RECORD if file_format.pillow in WITH_RECORD else None)


def test_files_of_others_have_no_record(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    image, exif = PillowImage.new("RGB", (4, 4)), PillowImage.Exif()
    for name, text in (("text", "a wall"), ("json", '{"software": "another"}'), ("list", "[1]")):
        exif[0x010E] = text
        image.save(tmp_path / f"{name}.jpg", exif=exif)
    for path in tmp_path.iterdir():
        assert read_record(path) is None


def test_a_file_is_compared_with_what_would_be_made(tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    images.write(torch.zeros(1, 9, 7), path, record=RECORD)
    assert contradiction(path, RECORD) is None
    assert contradiction(path, {**RECORD, "command": "another", "width": None}) is None
    for change, words in (
        (
            {"model_sha256": "cd"},
            "was made by another model (bark), or before it was trained again",
        ),
        ({"seed": 4}, "was made with seed 3, not 4"),
        ({"index": 0}, "was made with index 1, not 0"),
        ({"width": 8}, "is 7x9, not 8x9"),
        ({"options": {"guide": "a.png"}}, "was made with other guide, steps"),
        ({"inputs": [{"name": "a.png", "sha256": "1"}]}, "was made with other input images"),
    ):
        assert contradiction(path, {**RECORD, **change}) == words
    images.write(torch.zeros(1, 9, 7), path)  # as after another program
    assert contradiction(path, {**RECORD, "seed": 4}) is None
    assert contradiction(path, {**RECORD, "height": 8}) == "is 7x9, not 7x8"
    Path(path).write_bytes(b"")
    assert contradiction(path, RECORD) == "is not a readable image"


def test_folders_stay_private(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    assert SourceFile.of(tmp_path / "a.png") == ("a.png", digest)
    for text, name in (
        ("/home/me/a b.png", "a b.png"),
        ("runs/bark/", "bark"),
        (r"C:\Users\me\a.png", "a.png"),
        ("512x256", "512x256"),
        ("/", "/"),
    ):
        assert without_folders(text) == name
