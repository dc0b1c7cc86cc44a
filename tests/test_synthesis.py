"""Samples as pixels: batches, images that steer them, regular patterns, blocks and memory."""

import dataclasses
import itertools
import logging
import re
import shutil
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gcn_cli import synthesis
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import ModelKind, NoiseConditionalKind, TilingPlan, build_kind
from gcn_cli.models import chunks
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.options import SampleOptions, Seamless
from gcn_cli.pattern import Pattern, PhaseField
from gcn_cli.presets import PRESETS
from gcn_cli.samplers.guidance import ImageGuide
from gcn_cli.samplers.rng import named_generator
from gcn_cli.synthesis import (
    GUIDE_DEVIATION,
    file_allocator,
    place_image,
    placement,
    plan_tiling,
    samples,
)

GIB = 2**30
SIDE = 128
SCALE = 20.0
LAST_QUARTER = slice(3 * SIDE // 4, SIDE)
Usage = namedtuple("Usage", "free")


def untrained(
    size: int = SIDE, mean: float = 100.0, scale: float = SCALE, **settings: Any
) -> Checkpoint:
    """A model of white noise: samples show what they are steered with."""
    config = NoiseConditionalConfig(layers=parse_layers("8@5,8@3/2"), **settings)
    normalization = Normalization((mean,) * 3, (scale,) * 3)
    return Checkpoint(build_kind(config, (size, size)), normalization, (size, size))


def sample(options: SampleOptions, checkpoint: Checkpoint | None = None) -> Tensor:
    model = checkpoint or untrained(stages=1)
    return next(samples(model, options, [0], torch.float32))


# Batches


@pytest.fixture
def on_meta() -> Checkpoint:
    """A model that is not on the CPU."""
    checkpoint = untrained(32)
    checkpoint.kind.net.to("meta")
    return checkpoint


def test_out_of_memory_halves_the_batch_and_is_logged(
    on_meta: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batches = []

    def fake(
        _a: object, _b: object, indices: list[int], *_: object, guidance: object, phases: object
    ) -> Tensor:
        assert guidance is None
        assert phases is None
        batches.append(indices)
        if len(indices) > 2:
            raise torch.OutOfMemoryError
        return torch.tensor(indices).float()[:, None, None, None].repeat(1, 3, 2, 2)

    monkeypatch.setattr(NoiseConditionalKind, "sample", fake)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        images = list(samples(on_meta, SampleOptions(), range(5), torch.float32))
    assert batches == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4]]
    assert [float(image.mean()) for image in images] == [100 + SCALE * k for k in range(5)]
    assert "out of memory on meta: continuing with 2 images at a time" in caplog.text


def test_an_image_that_does_not_fit_is_an_error(
    on_meta: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(NoiseConditionalKind, "sample", fake)
    with pytest.raises(torch.OutOfMemoryError):
        list(samples(on_meta, SampleOptions(), range(5), torch.float32))


# Images that steer the chains


def white_quarter(axis: int = -1) -> Tensor:
    """Black (3, SIDE, SIDE); the last quarter along an axis is white."""
    image = torch.zeros(3, SIDE, SIDE)
    image.narrow(axis, LAST_QUARTER.start, SIDE // 4).fill_(255)
    return image


@pytest.mark.parametrize(
    ("seamless", "padding_mode", "size"),
    [
        ("off", None, (SIDE, SIDE)),
        ("x", None, (SIDE, SIDE)),
        ("y", None, (SIDE, SIDE)),
        ("off", None, (30, 34)),
        (None, PaddingMode.REFLECT, (31, 34)),
        (None, PaddingMode.ZEROS, (33, 35)),
        ("both", None, (SIDE, SIDE)),
    ],
)
def test_a_start_image_stays_in_place(
    seamless: Seamless | None, padding_mode: PaddingMode | None, size: tuple[int, int]
) -> None:
    """With hardly any noise added the sample is the start."""
    generator = torch.Generator().manual_seed(1)
    start = 100 + SCALE * torch.randn(3, *size, generator=generator).clamp(-3, 3)
    options = SampleOptions(
        size=(size[1], size[0]),
        start=start,
        noise_level=0.03,
        steps=1,
        seamless=seamless,
        padding_mode=padding_mode,
    )
    difference = (sample(options) - start) / SCALE
    assert difference.shape == start.shape
    assert float(difference.square().mean().sqrt()) < 0.05


@pytest.mark.parametrize(("seamless", "axis"), [("off", -1), ("off", -2), ("y", -1), ("x", -2)])
def test_the_last_quarter_of_a_guide_is_the_last_quarter_of_the_sample(
    seamless: Seamless, axis: int
) -> None:
    options = SampleOptions(seamless=seamless, steps=6)
    guided = sample(dataclasses.replace(options, guide=white_quarter(axis), guide_strength=1.0))
    shift = (guided - sample(options)).mean(dim=0).movedim(axis, -1).mean(dim=0)
    # The low-pass filter has a deviation of 12 pixels.
    assert float(shift[-8:].mean()) > 10
    assert float(shift[40:70].mean()) < 0
    # Beyond the first side is its own mirror image, not the last side.
    assert float(shift[:8].mean()) < 0


def test_a_guide_of_the_first_map_leaves_the_other_channels() -> None:
    x = torch.randn(1, 5, 40, 40, generator=torch.Generator().manual_seed(0))
    guide = ImageGuide(torch.ones(1, 3, 40, 40), 1)
    guided = guide.wrap(lambda x, noise: x)(x, 3.0)
    assert torch.equal(guided[:, 3:], x[:, 3:])
    assert float((guided - x)[:, :3].mean()) > 0.5


@pytest.mark.parametrize("seamless", ["off", "both"])
def test_mean_and_contrast_of_a_guide_are_measured_on_the_image_only(seamless: Seamless) -> None:
    model, size, options = untrained(stages=1), (SIDE, SIDE), SampleOptions(seamless=seamless)
    larger_size = model.kind.sampling_size(options, size)
    assert (larger_size == size) == (seamless == "both")
    place = placement(model, options, larger_size)
    shapes = place(synthesis._guide_shapes(model, white_quarter(), size))
    assert tuple(shapes.shape[2:]) == larger_size
    kept = shapes[:, :, :SIDE, :SIDE]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-5)
    assert float(kept.std()) == pytest.approx(GUIDE_DEVIATION, rel=1e-4)


@pytest.mark.parametrize(("seamless", "padding_mode"), [("off", None), (None, PaddingMode.REFLECT)])
def test_the_second_model_is_used_where_the_mask_is_white(
    seamless: Seamless | None, padding_mode: PaddingMode | None
) -> None:
    options = SampleOptions(
        size=(SIDE - 1, SIDE - 1),
        seamless=seamless,
        padding_mode=padding_mode,
        steps=4,
        blend=untrained(mean=200.0, stages=1),
        mask=white_quarter(),
    )
    columns = sample(options).mean(dim=(0, 1))
    assert float(columns[LAST_QUARTER.start + 12 : -12].mean()) == pytest.approx(200, abs=5)
    assert float(columns[24 : LAST_QUARTER.start - 16].mean()) == pytest.approx(100, abs=5)
    if seamless == "off":
        assert float(columns[-6:].mean()) == pytest.approx(200, abs=8)
        assert float(columns[:6].mean()) == pytest.approx(100, abs=8)


def test_a_mask_has_the_size_of_the_sample_and_is_mirrored_beyond() -> None:
    larger_size = (SIDE, SIDE + 64)
    weights = synthesis._blend_weights(
        white_quarter(), (SIDE, SIDE), lambda x: place_image(x, larger_size, periodic=True)
    )
    assert tuple(weights.shape) == larger_size
    row, edge = weights[0], LAST_QUARTER.start
    assert float(row[edge - 1 : edge + 1].mean()) == pytest.approx(0.5, abs=0.02)
    assert float(row[SIDE]) == pytest.approx(1, abs=1e-3)  # the mirror image of white
    assert float(row[0]) == pytest.approx(0, abs=1e-3)  # no white from beyond
    assert float(row[-1]) == pytest.approx(0, abs=1e-3)


def test_images_are_mirrored_beyond_their_sides() -> None:
    line = torch.arange(4.0)[None]
    placed = place_image(line, (1, 11), periodic=False)
    assert placed[0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]
    # Periodic: three of the seven further pixels precede the first.
    placed = place_image(line, (1, 11), periodic=True)
    assert placed[0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 3, 2, 1]
    assert place_image(line.T, (5, 1), periodic=True)[:, 0].tolist() == [0, 1, 2, 3, 2]
    assert place_image(torch.ones(1, 1), (3, 2), periodic=True).tolist() == [[1, 1]] * 3


def test_an_image_of_the_sampling_size_is_returned_unchanged() -> None:
    image = torch.rand(3, 5, 7)
    for periodic in (True, False):
        assert place_image(image, (5, 7), periodic=periodic) is image


def test_a_model_with_a_head_has_one_size() -> None:
    checkpoint = untrained(16, head=True, crop=None, margin=0, stages=1)
    with pytest.raises(InputError, match="--size: this model has a head for 16x16"):
        sample(SampleOptions(size=(20, 16)), checkpoint)


# Regular patterns


def untrained_regular(
    waves: Sequence[tuple[float, float]] = ((1 / 20, 0.0), (0.0, 1 / 14)),
    wander: float = 0.05,
    stages: int = 1,
) -> Checkpoint:
    """A net of random filters that sees a lattice."""
    axes = len(waves)
    config = NoiseConditionalConfig(layers=parse_layers("8@5,8@3/2"), stages=stages)
    kind = build_kind(config, (64, 64), lattice_axes=axes)
    for net in kind.net.stages:  # type: ignore[union-attr]
        net.initialize(named_generator(0, "layer", 0))
    pattern = Pattern(
        torch.tensor(waves),
        torch.randn(3, *[12] * axes, generator=named_generator(1, "cell")),
        torch.full((axes,), wander),
        torch.tensor(0.9),
    )
    return Checkpoint(kind, Normalization((128.0,) * 3, (40.0,) * 3), (64, 64), pattern=pattern)


def distortion_message(model: Checkpoint, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        sample(SampleOptions(steps=1, **options), model)
    return " ".join(line for line in caplog.messages if "distorted" in line)


@pytest.mark.parametrize(
    "waves",
    [[(1 / 20, 0.0), (0.0, 1 / 14)], [(1 / 18, 1 / 26), (1 / 18, -1 / 26)], [(0.0, 1 / 21)]],
    ids=["grid", "slanted", "columns"],
)
def test_a_size_that_distorts_the_lattice_is_told_and_the_named_sizes_fit(
    waves: list[tuple[float, float]], caplog: pytest.LogCaptureFixture
) -> None:
    model = untrained_regular(waves)
    message = distortion_message(model, caplog, size=(34, 30))
    assert message.startswith("--size 34x30: the pattern is distorted by ")
    assert message.endswith(" fit")
    named = [re.search(rf"a {side} of ([\d or]*\d)", message) for side in ("width", "height")]
    assert named[0] is not None or named[1] is not None, message
    sides = (
        [given] if found is None else map(int, found[1].split(" or "))
        for found, given in zip(named, (34, 30), strict=True)
    )
    for size in itertools.product(*sides):
        assert distortion_message(model, caplog, size=size) == "", size
    free = {"size": (34, 30), "seamless": "off"}
    assert distortion_message(model, caplog, **free) == ""  # nothing has to close


def test_where_no_size_near_fits_the_advice_is_no_seam(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcn_cli.synthesis.fitting_sides", lambda *_: [])
    message = distortion_message(untrained_regular([(1 / 20, 0.0)]), caplog, size=(34, 30))
    assert message.endswith("to tile; --seamless off keeps its shape")


@pytest.mark.parametrize("stages", [1, 2])
def test_every_sample_has_its_lattice_whatever_the_batch_and_tile(stages: int) -> None:
    model, options = untrained_regular(stages=stages), SampleOptions(size=(56, 60), steps=3)

    def drawn(indices: Sequence[int], **changed: Any) -> list[Tensor]:
        chosen = dataclasses.replace(options, **changed)
        return list(samples(model, chosen, indices, torch.float32))

    batch = drawn([0, 1, 2])
    for index, image in enumerate(batch):
        assert torch.equal(drawn([index])[0], image)
    tiled = drawn([1], tile=16)[0]
    torch.testing.assert_close(tiled, batch[1], rtol=0, atol=2e-3)
    assert torch.equal(drawn([1], tile=32)[0], tiled)
    straight = drawn([1], regularity=1.0)[0]
    assert not torch.equal(straight, batch[1])
    plain = dataclasses.replace(model, pattern=None)
    unseen = next(samples(plain, options, [1], torch.float32))
    assert not torch.equal(unseen, batch[1])


def test_a_start_image_keeps_its_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its phases are located; a start that does not show the pattern has a lattice at random."""
    model, seen = untrained_regular(wander=0.0), []
    assert model.pattern is not None
    original = synthesis._sample_phases

    def recorded(*arguments: Any) -> PhaseField | None:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(synthesis, "_sample_phases", recorded)
    cell = model.pattern.cell.repeat(1, 5, 7)[:, :60, :84]  # twelve values a period
    start = torch.nn.functional.interpolate(cell[None], (100, 98), mode="bilinear")[0]
    pixels = (128 + 40 * start).clamp(0, 255)
    for moved in (0, 5):
        image = pixels.roll(moved, 1)
        sample(SampleOptions(size=(98, 100), start=image, noise_level=1.0, steps=1), model)
    first, second = seen
    assert first is not None
    assert second is not None
    rows, columns = torch.arange(20.0), torch.arange(14.0)
    difference = (second(rows, columns) - first(rows, columns))[0]
    turns = difference[0].mean(), difference[1].mean()
    assert float((turns[0] + 5 / 20) % 1 + 0.5) % 1 == pytest.approx(0.5, abs=0.03)
    assert float((turns[1] + 0.5) % 1) == pytest.approx(0.5, abs=0.03)
    noise = torch.rand(3, 60, 56, generator=named_generator(2, "noise")).mul(255)
    options = SampleOptions(size=(56, 60), start=noise, noise_level=1.0, steps=1)
    sample(options, model)
    assert seen[2] is not None
    assert torch.equal(seen[2].waves * torch.tensor([60, 56]), torch.tensor([[3.0, 0], [0, 4.0]]))


def test_a_guide_that_shows_the_pattern_gives_its_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained_regular(wander=0.0)
    assert model.pattern is not None
    found: list[PhaseField | None] = []
    original = synthesis._sample_phases

    def recorded(*arguments: Any) -> PhaseField | None:
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(synthesis, "_sample_phases", recorded)
    cell = model.pattern.cell.repeat(1, 5, 7)[:, :60, :84]
    start = torch.nn.functional.interpolate(cell[None], (100, 98), mode="bilinear")[0]
    guide = (128 + 40 * start).clamp(0, 255)
    for options in (
        SampleOptions(size=(98, 100), guide=guide, steps=1),
        SampleOptions(size=(98, 100), start=guide, noise_level=1.0, steps=1),
    ):
        sample(options, model)
    first, second = found
    assert first is not None
    assert second is not None
    rows, columns = torch.arange(20.0), torch.arange(14.0)
    torch.testing.assert_close(first(rows, columns), second(rows, columns))


def test_without_a_pattern_samples_are_those_of_a_plain_model() -> None:
    model = untrained(32, 128.0, 40.0)
    assert model.kind.net.finest.phase_weights is None  # type: ignore[union-attr]
    with pytest.raises(InputError, match="--regularity: this model has no regular pattern"):
        sample(SampleOptions(size=(32, 32), steps=2, regularity=1.0), model)


# Blocks and memory


def set_free(monkeypatch: pytest.MonkeyPatch, memory: float, disk: float = 1000) -> None:
    """Free memory and disk in GiB."""
    monkeypatch.setattr(synthesis, "free_memory", lambda _: int(memory * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(disk * GIB)))


@pytest.fixture(scope="module")
def kind() -> ModelKind:
    return build_kind(NoiseConditionalConfig(), (256, 256))


def plan(kind: ModelKind, side: int, tile: Any = "auto", **options: Any) -> TilingPlan:
    return plan_tiling(kind, SampleOptions(**options), (side, side), torch.float32, tile)


def test_an_image_that_fits_is_computed_at_once(
    kind: ModelKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_free(monkeypatch, 8)
    assert plan(kind, 1024).blocks == 1
    assert not caplog.text


@pytest.mark.parametrize(("memory", "block"), [(8, 1024), (4.5, 512), (4.0, 256)])
def test_blocks_are_as_large_as_memory_allows(
    memory: float,
    block: int,
    kind: ModelKind,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_free(monkeypatch, memory)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        tiling = plan(kind, 8192)
    assert (tiling.block, tiling.allocator) == (block, None)
    assert tiling.blocks == (8192 // block) ** 2
    assert f"computed in {tiling.blocks} block(s) of {block} pixels (--tile)" in caplog.text


def test_chains_are_on_disk_if_memory_is_short(
    kind: ModelKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_free(monkeypatch, 2)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        assert plan(kind, 8192).allocator is not None
    assert "GiB are kept in files in" in caplog.text


@pytest.mark.parametrize(
    ("memory", "disk", "side", "tile"), [(2, 1, 8192, "auto"), (8, 100, 10**6, "auto"),
                                         (0.1, 100, 8192, 256), (1, 9, 2048, "off")]
)  # fmt: skip
def test_images_that_nothing_holds_are_refused(
    memory: float, disk: float, side: int, tile: Any, kind: ModelKind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    set_free(monkeypatch, memory, disk)
    with pytest.raises(InputError, match=rf"--size {side}x{side}: needs .* GiB"):
        plan(kind, side, tile)


def test_models_of_whole_images_refuse_blocks() -> None:
    for config, options in (
        (PRESETS["paper-texture"], {}),
        (PRESETS["object"], {}),
        (NoiseConditionalConfig(), {"padding_mode": PaddingMode.REFLECT}),
    ):
        with pytest.raises(InputError, match="--tile 64: this model or padding mode"):
            plan(build_kind(config, (64, 64)), 64, 64, **options)


def test_requested_blocks_are_rounded_to_the_stride(
    kind: ModelKind, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        assert plan(kind, 256, 100).block == 128
    assert "computed in 4 block(s) of 128 pixels" in caplog.text


def test_a_sample_does_not_depend_on_blocks_chunks_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(32, 128.0, 40.0)
    model.kind.net.finest.initialize(named_generator(0, "layer", 0))  # type: ignore[operator, union-attr]
    options = SampleOptions(size=(52, 45), steps=4)

    def tiled(tile: Any) -> Tensor:
        return sample(dataclasses.replace(options, tile=tile), model)

    whole = tiled("off")
    monkeypatch.setattr(chunks, "CHUNK", 64)
    assert torch.equal(tiled("off"), whole)
    torch.testing.assert_close(tiled(16), whole, rtol=0, atol=1e-3)
    allocate = file_allocator(str(tmp_path))
    x = allocate((2, 3, 5), torch.float32)
    assert x.is_contiguous()
    assert x.fill_(2.0).sum() == 60
    tiling = TilingPlan((45, 52), 16, allocate)
    x = model.kind.sample(options, [0], None, tiling, torch.float32, lambda *_: None)
    torch.testing.assert_close(model.normalization.to_pixels(x[0]), whole, rtol=0, atol=1e-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tile", "total"), [(16, 2 * 3 * 4), ("off", 2 * 3)])
def test_progress_counts_blocks(tile: Any, total: int) -> None:
    calls: list[tuple[int, int]] = []
    options = SampleOptions(steps=3, tile=tile)
    for _ in samples(
        untrained(32), options, range(2), torch.float32, on_step=lambda *call: calls.append(call)
    ):
        pass
    assert calls == [(k + 1, total) for k in range(total)]
