"""Model files: whole, and refused when they are not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gcn_cli import checkpoint
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import PaperConfig
from gcn_cli.errors import InputError
from gcn_cli.images import PixelScale
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.model.spec import LayerSpec


def sample(head: bool = False) -> Checkpoint:
    layers = (LayerSpec(4, 5, 2, 1), LayerSpec(3, 3))
    model = GenerativeConvNet(layers, head_for=(16, 16) if head else None)
    model.initialise(0.1, torch.Generator().manual_seed(0))
    return Checkpoint(
        config=PaperConfig(layers=layers, head=head, seed=7),
        pixels=PixelScale((1.0, 2.0, 3.0), 1.0),
        model=model,
        image_size=(16, 16),
        iteration=2,
        total_iterations=9,
        seconds=1.5,
        data_digest="abc",
        history=[{"iteration": 1.0, "gap": 0.1}, {"iteration": 2.0, "gap": 0.3}],
        learner_state={"stage": torch.tensor(1), "noise": torch.arange(9, dtype=torch.uint8)},
    )


@pytest.mark.parametrize("head", [False, True])
def test_everything_comes_back(head: bool, tmp_path: Path) -> None:
    before = sample(head)
    checkpoint.save(tmp_path / "m.safetensors", before)
    after = checkpoint.load(tmp_path / "m.safetensors")
    for name in ("config", "pixels", "image_size", "iteration", "seconds", "history"):
        assert getattr(after, name) == getattr(before, name), name
    for ours, theirs in zip(after.model.parameters(), before.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, tensor in before.learner_state.items():
        assert torch.equal(after.learner_state[name], tensor)


def test_bad_files_are_one_clear_line(tmp_path: Path) -> None:
    absent = tmp_path / "absent.safetensors"
    with pytest.raises(InputError, match="no such model file"):
        checkpoint.load(absent)

    path = tmp_path / "m.safetensors"
    checkpoint.save(path, sample())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a gcn model file"):
        checkpoint.load(path)

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a gcn model file"):
        checkpoint.load(path)

    save_file({"x": torch.zeros(1)}, path, metadata={"gcn": json.dumps({"format": 99})})
    with pytest.raises(InputError, match="format 99"):
        checkpoint.load(path)

    save_file(
        {"x": torch.zeros(1)}, path, metadata={"gcn": json.dumps({"format": checkpoint.FORMAT})}
    )
    with pytest.raises(InputError, match="incomplete"):
        checkpoint.load(path)
