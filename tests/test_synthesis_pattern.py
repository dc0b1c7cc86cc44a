"""A regular texture from training to samples: its pattern is kept, and followed."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.options import SampleOptions
from gcn_cli.pattern import PatternProjection, lowest_levels
from gcn_cli.samplers.annealed import noise_levels
from gcn_cli.synthesis import _moves
from tests.small import LADDER


def grid() -> torch.Tensor:
    """Joints every 16 pixels down and across over grain, (3, 96, 96)."""
    dark = torch.arange(96) % 16 < 3
    lines = torch.where(dark[:, None] | dark, 60.0, 160.0)
    grain = torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))
    return (lines + 15 * grain).clamp(0, 255)


@pytest.fixture(scope="module")
def model() -> gcn.Model:
    return gcn.train(grid(), iterations=4, **LADDER)


def plain(model: gcn.Model) -> gcn.Model:
    """The same without its pattern."""
    checkpoint = dataclasses.replace(model.checkpoint, pattern=None, periods=(None, None))
    return gcn.Model(checkpoint, model.dtype)


def test_the_pattern_is_found_saved_and_loaded(model: gcn.Model, tmp_path: Path) -> None:
    found = model.checkpoint.pattern
    assert found is not None
    assert found.periods == pytest.approx((16, 16), abs=0.05)
    assert model.checkpoint.periods == found.periods
    model.save(tmp_path / "m.safetensors")
    again = gcn.load(tmp_path / "m.safetensors", device="cpu", precision="float32")
    assert again.checkpoint.pattern is not None
    assert torch.equal(again.checkpoint.pattern.cell, found.cell)
    pair = [one.synthesize(size=(64, 48), steps=4, kind="torch")[0] for one in (model, again)]
    assert torch.equal(pair[0], pair[1])


def test_chains_are_the_pattern_and_noise_where_layout_is_settled(model: gcn.Model) -> None:
    """Each moved by a share of its own, whatever the batch."""
    size, pattern, levels = (64, 48), model.checkpoint.pattern, noise_levels(25, 100.0, 0.03)
    assert pattern is not None
    first = float(lowest_levels(pattern).max())
    settled = next(number for number, level in enumerate(levels) if level <= first)
    seen: list[torch.Tensor] = []
    (made,) = model.samples(
        size=(48, 64), numbers=[2], on_state=lambda x: seen.append(x[0].clone())
    )
    chain = seen[
        settled - 1
    ]  # after the step that ends at the first level at which the model decides
    moves = [_moves(SampleOptions(), [number]) for number in (2, 3)]
    off = []
    for move in moves:
        held = PatternProjection(pattern, size, move)
        missing = held.up[0] @ chain @ held.along[0].T - held.wanted
        missing[:, 0, 0] = 0
        off.append(float(missing.square().mean().sqrt()) / levels[settled])
    assert off[0] == pytest.approx(1, abs=0.15)
    assert off[1] > 1.05 * off[0]  # moved otherwise, it would be further
    assert torch.equal(made, model.synthesize(size=(48, 64), count=3, kind="torch")[2])


def test_what_says_more_than_the_pattern_is_followed_alone(model: gcn.Model) -> None:
    for words in ({"start": grid()}, {"guide": grid(), "size": (64, 64)}):
        ours, theirs = (next(one.samples(steps=4, **words)) for one in (model, plain(model)))
        assert torch.equal(ours, theirs)
    small = [next(one.samples(steps=4, size=(8, 8))) for one in (model, plain(model))]
    assert torch.equal(small[0], small[1])  # half a period


def test_a_damaged_pattern_is_refused(model: gcn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    cell = tensors["pattern.cell"]
    for damaged in (cell[:, :-1], cell * torch.nan, None):
        changed = {name: tensor for name, tensor in tensors.items() if name != "pattern.cell"}
        if damaged is not None:
            changed["pattern.cell"] = damaged.contiguous()
        save_file(changed, tmp_path / "bad.safetensors", metadata=metadata)
        with pytest.raises(InputError, match="incomplete or inconsistent"):
            gcn.load(tmp_path / "bad.safetensors")
