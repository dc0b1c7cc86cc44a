"""Repair, denoising and blocks through the command line."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from gcn_cli.images import read_image
from tests.cli.running import gcn

SMALL = [
    "--set", "layers=8@5,8@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "10",
    "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def scratched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a magenta scratch, where it is, and a model that has not seen it."""
    folder = tmp_path_factory.mktemp("scratched")
    picture = Image.effect_noise((60, 48), 60).convert("RGB")
    mask = Image.new("L", picture.size)
    for image, white in ((picture, (255, 0, 255)), (mask, 255)):
        image.paste(white, (25, 4, 31, 30))
    picture.save(folder / "photo.png")
    mask.save(folder / "mask.png")
    done = gcn("train", "photo.png", "--mask", "mask.png", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def test_a_picture_is_repaired_by_its_own_texture_in_two_lines(scratched: Path) -> None:
    done = gcn("reconstruct", "photo.png", "--mask", "mask.png", "-o", "fixed.png", cwd=scratched)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["fixed.png"]
    before, after, white = (
        read_image(str(scratched / name)).pixels for name in ("photo.png", "fixed.png", "mask.png")
    )
    kept = (white[0] == 0).expand_as(before)
    assert torch.equal(before[kept], after[kept])
    made = after[:, white[0] > 0]
    # Grays, as all that was learned from: magenta was not.
    assert float((made[0] - made[1]).abs().mean()) < 20


def test_one_file_holds_one_picture(scratched: Path) -> None:
    words = ["reconstruct", "photo.png", "--mask", "mask.png", "--count", "2", "-o", "two.png"]
    done = gcn(*words, cwd=scratched)
    assert done.returncode == 2
    assert b"--output two.png: one file for several pictures" in done.stderr
    assert not (scratched / "two.png").exists()


def test_noise_is_taken_off_and_said(scratched: Path) -> None:
    done = gcn("reconstruct", "photo.png", "--denoise", "auto", "-o", "clean.png", cwd=scratched)
    assert done.returncode == 0, done.stderr.decode()
    assert b"gray levels (--denoise)" in done.stderr
    before, after = (read_image(str(scratched / n)).pixels for n in ("photo.png", "clean.png"))
    assert before.shape == after.shape
    assert 0 < float((before - after).std()) < float(before.std())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--denoise", "0"], "'0' is not auto or gray levels"),
        (["--denoise", "3", "--count", "2"], "--count, --seed: are for"),
        (["--denoise", "3", "--steps", "2"], "--steps: noise is taken off at once"),
        (["--denoise", "3", "--mask", "mask.png"], "one at a time"),
    ],
)
def test_what_means_nothing_with_denoising_is_refused(
    words: list[str], message: str, scratched: Path
) -> None:
    done = gcn("reconstruct", "photo.png", *words, "-o", "no.png", cwd=scratched)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert not (scratched / "no.png").exists()


def test_blocks_make_the_same_file(scratched: Path) -> None:
    made = []
    for tile in ("off", "16", "20"):
        name = f"tiled-{tile}.png"
        words = ["--size", "45x37", "--seed", "3", "--steps", "4", "--tile", tile, "-o", name]
        done = gcn("synthesize", *words, "--precision", "float32", cwd=scratched)
        assert done.returncode == 0, done.stderr.decode()
        made.append(read_image(str(scratched / name)).pixels)
    assert b"block(s) of 20" not in done.stderr  # a multiple of the stride, 4, as it is
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], rtol=0, atol=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "0"], "'0' is not auto, off or a number of pixels"),
        (["--tile", "16", "--set", "padding_mode=reflect"], "--tile 16: this model, or its border"),
        (["--size", "70000x4", "-o", "wide.jpg"], "wide.jpg: 70000x4 pixels, the format holds"),
        (["--size", "9000000"], "GiB"),
    ],
)
def test_sizes_and_blocks_that_cannot_be_are_refused(
    words: list[str], message: str, scratched: Path
) -> None:
    done = gcn("synthesize", *words, cwd=scratched)
    assert done.returncode == 2
    assert message in done.stderr.decode()
