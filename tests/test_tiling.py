"""How large pictures are gone through: what is chosen, what is refused, what is the same."""

import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from gcn_cli import synthesis as planning
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import ModelKind, TilingPlan, build_kind
from gcn_cli.models import chunks as rooms
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.options import SampleOptions
from gcn_cli.presets import PRESETS
from gcn_cli.samplers.rng import named_generator
from gcn_cli.synthesis import files_in, samples, tiling_plan

GIB = 2**30
Usage = namedtuple("Usage", "free")


def free(monkeypatch: pytest.MonkeyPatch, memory: float, disk: float = 1000) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda _: int(memory * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(disk * GIB)))


@pytest.fixture(scope="module")
def family() -> ModelKind:
    return build_kind(NoiseConditionalConfig(), (256, 256))


def plan(
    family: ModelKind, side: int, tile: int | str = "auto", **asked: PaddingMode
) -> TilingPlan:
    return tiling_plan(family, SampleOptions(**asked), (side, side), torch.float32, tile)  # type: ignore[arg-type]


def test_what_memory_holds_is_made_at_once(
    family: ModelKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(monkeypatch, 8)
    assert plan(family, 1024).blocks == 1
    assert not caplog.text


@pytest.mark.parametrize(("memory", "block"), [(8, 1024), (4.5, 512), (4.0, 256)])
def test_blocks_are_as_large_as_memory_lets_them_be(
    memory: float,
    block: int,
    family: ModelKind,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    free(monkeypatch, memory)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        canvas = plan(family, 8192)
    assert (canvas.block, canvas.room) == (block, None)
    assert canvas.blocks == (8192 // block) ** 2
    assert f"made in {canvas.blocks} block(s) of {block} pixels (--tile)" in caplog.text


def test_a_state_that_memory_does_not_hold_is_laid_on_disk(
    family: ModelKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(monkeypatch, 2)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        canvas = plan(family, 8192)
    assert canvas.room is not None
    assert "GiB are laid in files in" in caplog.text


@pytest.mark.parametrize(
    ("memory", "disk", "side", "tile"), [(2, 1, 8192, "auto"), (8, 100, 10**6, "auto"),
                                         (0.1, 100, 8192, 256), (1, 9, 2048, "off")]
)  # fmt: skip
def test_what_nothing_holds_is_refused(
    memory: float,
    disk: float,
    side: int,
    tile: int | str,
    family: ModelKind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free(monkeypatch, memory, disk)
    with pytest.raises(InputError, match=rf"--size {side}x{side}: needs .* GiB"):
        plan(family, side, tile)


def test_models_that_take_pictures_whole_refuse_blocks() -> None:
    for config, more in (
        (PRESETS["paper-texture"], {}),
        (PRESETS["object"], {}),
        (NoiseConditionalConfig(), {"lattice": PaddingMode.REFLECT}),
    ):
        with pytest.raises(InputError, match="--tile 64: this model, or its border"):
            plan(build_kind(config, (64, 64)), 64, 64, **more)


def test_blocks_asked_for_are_whole_strides(
    family: ModelKind, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        assert plan(family, 256, 100).block == 128
    assert "made in 4 block(s) of 128 pixels" in caplog.text


def test_a_picture_is_the_same_however_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once; piece by piece; block by block; in files, of which none is left."""
    config = NoiseConditionalConfig(layers=parse_layers("8@5,8@3/2"))
    family = build_kind(config, (32, 32))
    family.net.initialize(named_generator(0, "layer", 0))  # type: ignore[call-arg, arg-type]
    model = Checkpoint(family, Normalization((128.0,) * 3, (40.0,) * 3), (32, 32))
    request = SampleOptions(size=(45, 52), steps=4)

    def made(tile: int | str) -> torch.Tensor:
        return next(samples(model, request, range(1), torch.float32, tile=tile))  # type: ignore[arg-type]

    whole = made("off")
    monkeypatch.setattr(rooms, "PIECE", 64)
    assert torch.equal(made("off"), whole)
    torch.testing.assert_close(made(16), whole, rtol=0, atol=1e-3)
    room = files_in(str(tmp_path))
    x = room((2, 3, 5), torch.float32)
    assert x.is_contiguous()
    assert x.fill_(2.0).sum() == 60
    canvas = TilingPlan((45, 52), 16, room)
    drawn = family.sample(request, [0], None, canvas, torch.float32, lambda *_: None)
    torch.testing.assert_close(model.pixels.to_pixels(drawn[0]), whole, rtol=0, atol=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_the_bar_counts_blocks() -> None:
    config = NoiseConditionalConfig(layers=parse_layers("8@5,8@3/2"))
    family = build_kind(config, (32, 32))
    model = Checkpoint(family, Normalization((128.0,) * 3, (40.0,) * 3), (32, 32))
    for tile, total in ((16, 2 * 3 * 4), ("off", 2 * 3)):
        told: list[tuple[int, int]] = []
        list(
            samples(
                model,
                SampleOptions(steps=3),
                range(2),
                torch.float32,
                tile=tile,  # type: ignore[arg-type]
                on_step=lambda done, all_, told=told: told.append((done, all_)),  # type: ignore[misc]
            )
        )
        assert told == [(k + 1, total) for k in range(total)]
