"""Model files hold a whole run; damaged ones and other formats are refused in one line."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import gcn_cli as gcn
from gcn_cli import checkpoint
from gcn_cli.checkpoint import FORMAT, Checkpoint
from gcn_cli.config import PublishedConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import build_kind
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.layers import LayerSpec
from tests.damage import damaged, message_of
from tests.drawing import grid, textured
from tests.small import SMALL_TEXTURE, small_image, smooth_image

ROUNDS = int(os.environ.get("GCN_FUZZ", "60"))  # damaged files; 10000 takes some minutes


def example(head: bool = False) -> Checkpoint:
    layers = (LayerSpec(4, 5, 2, 1), LayerSpec(3, 3))
    kind = build_kind(PublishedConfig(layers=layers, head=head, seed=7), (16, 16))
    assert isinstance(kind.net, GenerativeConvNet)
    kind.net.initialize(0.1, torch.Generator().manual_seed(0))
    return Checkpoint(
        kind=kind,
        normalization=Normalization((1.0, 2.0, 3.0), (1.0,) * 3),
        image_size=(16, 16),
        iteration=2,
        total_iterations=9,
        seconds=1.5,
        data_digest="abc",
        history=[
            {"iteration": 1.0, "energy_difference": 0.1},
            {"iteration": 2.0, "energy_difference": 0.3},
        ],
        trainer_state={"stage": torch.tensor(1), "noise": torch.arange(9, dtype=torch.uint8)},
    )


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    gcn.train(small_image(), iterations=2, **SMALL_TEXTURE).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("head", [False, True])
def test_everything_is_restored(head: bool, tmp_path: Path) -> None:
    before, path = example(head), tmp_path / os.fsdecode(b"caf\xe9") / "m.safetensors"
    checkpoint.save(path, before)
    after = checkpoint.load(path)
    for name in ("config", "normalization", "image_size", "iteration", "seconds", "history"):
        assert getattr(after, name) == getattr(before, name), name
    for ours, theirs in zip(after.kind.net.parameters(), before.kind.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, tensor in before.trainer_state.items():
        assert torch.equal(after.trainer_state[name], tensor)


def test_a_cascade_is_restored_with_its_transitions(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    settings: dict[str, Any] = SMALL_TEXTURE | {"stages": 2, "iterations": 2}
    image = 128 + 40 * smooth_image()
    before = gcn.train(image, **settings)
    before.save(path)
    after = checkpoint.load(path).kind.net.state_dict()
    assert "nets.1.weights.0" in after
    assert float(after["transitions"]) > 0
    for name, tensor in before.checkpoint.kind.net.state_dict().items():
        assert torch.equal(after[name], tensor), name


@pytest.fixture(scope="module")
def regular() -> gcn.Model:
    image = 128 + 40 * textured(grid(48, 48, 16, 16)).expand(3, -1, -1)
    settings = SMALL_TEXTURE | {"pattern": "16,16", "layers": "4@3,4@3/2"}
    return gcn.train(image, iterations=2, **settings)


def test_a_pattern_is_restored(regular: gcn.Model, tmp_path: Path) -> None:
    path, before = tmp_path / "m.safetensors", regular.checkpoint
    regular.save(path)
    loaded = gcn.load(path, device="cpu", precision="float32")
    after = loaded.checkpoint
    assert before.pattern is not None
    assert after.pattern is not None
    for name, tensor in vars(before.pattern).items():
        assert torch.equal(vars(after.pattern)[name], tensor), name
    assert loaded.config.pattern == "16,16"
    image = 128 + 40 * textured(grid(48, 48, 16, 16), seed=1).expand(3, -1, -1)
    x = after.to_model(image)
    found = after.phases(x)
    assert found is not None
    rows = torch.arange(16)
    torch.testing.assert_close(found(rows, rows), before.phases(x)(rows, rows))  # type: ignore[misc]
    assert after.phases(torch.zeros(1, 3, 48, 48)) is None
    seen = loaded.at_level(0.5, phases=loaded.phases(x)).basis(x)
    torch.testing.assert_close(after.density(x, 0.5).basis(x), seen)
    assert float((loaded.at_level(0.5).basis(x) - seen).abs().max()) > 1e-3
    size: dict[str, Any] = {"size": (32, 48), "steps": 2, "kind": "torch"}
    assert torch.equal(loaded.synthesize(**size)[0], regular.synthesize(**size)[0])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cell", lambda cell: cell[:2]),
        ("cell", lambda cell: cell[:, 0]),
        ("cell", lambda cell: cell * torch.nan),
        ("waves", lambda waves: waves[:1]),
        ("waves", lambda waves: waves / 0),
        ("wander", lambda wander: wander[:1]),
        ("share", lambda _: None),
    ],
)
def test_a_damaged_pattern_is_refused(
    name: str, change: Callable[[Tensor], Tensor | None], regular: gcn.Model, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    regular.save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    changed = change(tensors.pop(f"pattern.{name}"))
    if changed is not None:
        tensors[f"pattern.{name}"] = changed.contiguous()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match="incomplete or inconsistent model file"):
        checkpoint.load(path)


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model file"):
        checkpoint.load(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is no file"):
        checkpoint.load(tmp_path)
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, example())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a gcn model file"):
        checkpoint.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a gcn model file"):
        checkpoint.load(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"gcn": json.dumps({"format": FORMAT})})
    with pytest.raises(InputError, match="incomplete"):
        checkpoint.load(path)


@pytest.mark.parametrize("number", [4, 11, FORMAT + 1])
def test_another_format_is_refused_with_the_remedy(number: int, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    description = {"format": number, "version": "1.2.3"}
    save_file({"x": torch.zeros(1)}, path, metadata={"gcn": json.dumps(description)})
    expected = (
        f"{path}: model file of format {number}, this gcn reads format {FORMAT} only; "
        "train again, or use the gcn 1.2.3 that wrote it"
    )
    assert message_of(checkpoint.load, path) == expected


def test_damaged_files_are_refused_or_are_models(model_file: bytes, tmp_path: Path) -> None:
    path, refused = tmp_path / "model.safetensors", 0
    header = 8 + int.from_bytes(model_file[:8], "little")
    for seed in range(ROUNDS):
        path.write_bytes(damaged(model_file, random.Random(seed), header))
        refused += message_of(checkpoint.load, path) is not None
    assert refused > ROUNDS / 2


def described(change: dict[str, Any], model_file: bytes) -> bytes:
    """A model file with other values in its description, as "maps.0.name"."""
    length = int.from_bytes(model_file[:8], "little")
    header = json.loads(model_file[8 : 8 + length])
    about = json.loads(header["__metadata__"]["gcn"])
    for place, value in change.items():
        inner = about
        *folders, last = (int(part) if part.isdigit() else part for part in place.split("."))
        for part in folders:
            inner = inner[part]
        inner[last] = value
    header["__metadata__"]["gcn"] = json.dumps(about)
    changed = json.dumps(header).encode()
    return len(changed).to_bytes(8, "little") + changed + model_file[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": -1},
        {"total_iterations": float("inf")},
        {"seconds": "x"},
        {"image_size": [0, 40]},
        {"image_size": [32.5, 40]},
        {"asked": 5},
        {"sources": "abc"},
        {"maps.0.name": "../../up"},
        {"maps.0.bit_depth": 7},
        {"maps.0.dpi": "x"},
        {"maps.0.icc_profile": "!!!"},
        {"normalization.mean": [1.0, 2.0]},
        {"normalization.mean": [float("nan")] * 3},
        {"normalization.scale": [0.0] * 3},
    ],
)
def test_a_description_must_have_values_that_are_written(
    change: dict[str, Any], model_file: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(described({}, model_file))
    checkpoint.load(path)
    path.write_bytes(described(change, model_file))
    assert "incomplete or inconsistent" in (message_of(checkpoint.load, path) or "")


def test_normals_of_a_model_made_before_maps_had_kinds_stay_normals(
    model_file: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    for old, normals in (({"maps.0.normals": True}, True), ({"maps.0.normals": False}, False)):
        path.write_bytes(described(old, model_file))
        assert checkpoint.load(path).maps[0].normals == normals


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "finite"), (None, "shapes")])
def test_weights_must_be_numbers_of_the_layers_shapes(
    value: float | None, message: str, model_file: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_file)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weight = tensors["model.nets.0.weights.0"].clone()
    tensors["model.nets.0.weights.0"] = weight[:2].clone() if value is None else weight.fill_(value)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match=message):
        checkpoint.load(path)
