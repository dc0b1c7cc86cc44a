"""Damaged files are refused in one line, whatever is wrong with them: a fuzzer, short in the suite.

GCN_FUZZ=10000 in the environment makes it as long as that.
"""

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import gcn_cli as gcn
from gcn_cli import checkpoint
from gcn_cli.errors import InputError
from gcn_cli.images import open_picture

ROUNDS = int(os.environ.get("GCN_FUZZ", "60"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("model")
    picture = 255 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = gcn.train(picture, layers="4@5,4@3/2", crop=16, margin=2, iterations=2, device="cpu")
    model.save(folder / "model.safetensors")
    return (folder / "model.safetensors").read_bytes()


def damaged(data: bytes, draw: random.Random, header: int) -> bytes:
    """Bits turned (most in the header), parts cut out, doubled or replaced."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        end = header if draw.random() < 0.8 else len(made)
        place, length = draw.randrange(min(end, len(made) - 1)), draw.randint(1, 64)
        match draw.randrange(5):
            case 0:
                made[place] ^= 1 << draw.randrange(8)
            case 1:
                del made[place : place + length]
            case 2:
                made[place:place] = made[place : place + length]
            case 3:
                made[place : place + length] = draw.randbytes(length)
            case 4:
                digits = [k for k in range(min(end, len(made))) if chr(made[k]).isdigit()]
                if digits:
                    made[draw.choice(digits)] = ord(draw.choice("0123456789-e.9"))
        if len(made) < 2:
            break
    return bytes(made)


def complaint(read: Callable[[Path], object], path: Path) -> str | None:
    """The one line with which a file is refused, which names it; None where it is read."""
    try:
        read(path)
    except InputError as error:
        words = str(error)
    else:
        return None
    assert words.startswith(str(path))
    assert "\n" not in words
    return words


def test_damaged_model_files_are_refused_or_are_models(model_file: bytes, tmp_path: Path) -> None:
    path, refused = tmp_path / "model.safetensors", 0
    header = 8 + int.from_bytes(model_file[:8], "little")
    for seed in range(ROUNDS):
        path.write_bytes(damaged(model_file, random.Random(seed), header))
        refused += complaint(checkpoint.load, path) is not None
    assert refused > ROUNDS / 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
def test_damaged_pictures_are_refused_or_are_pictures(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((24, 20), 60).convert("RGB").save(buffer, kind)
    data, path = buffer.getvalue(), tmp_path / "picture"
    for seed in range(max(1, ROUNDS // 5)):
        path.write_bytes(damaged(data, random.Random(seed), 80))
        complaint(lambda found: open_picture(str(found)), path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weights.0", float("nan"), "no finite numbers"),
        ("weights.0", None, "other shapes"),
    ],
)
def test_weights_must_be_numbers_of_the_layers_shapes(
    name: str, value: float | None, message: str, model_file: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_file)
    loaded = checkpoint.load(path)
    weight = dict(loaded.family.net.named_parameters())[name]
    weight.data = weight.data[:2].clone() if value is None else weight.data.fill_(value)
    checkpoint.save(path, loaded)
    with pytest.raises(InputError, match=message):
        checkpoint.load(path)
