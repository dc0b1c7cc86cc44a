"""Samples as pixels: batches, images that steer them, stored patterns, blocks and memory."""

import dataclasses
import logging
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import gcn_cli as gcn
from gcn_cli import synthesis
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import ModelKind, NoiseConditionalKind, TilingPlan, build_kind
from gcn_cli.models import chunks
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.options import SampleOptions, Seamless
from gcn_cli.pattern import PatternProjection, projection_levels
from gcn_cli.presets import PRESETS
from gcn_cli.samplers.annealed import noise_levels
from gcn_cli.samplers.rng import named_generator
from gcn_cli.synthesis import (
    GUIDE_DEVIATION,
    file_allocator,
    pattern_shifts,
    place_image,
    placement,
    plan_tiling,
    samples,
)
from tests.small import SMALL_TEXTURE

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

    def fake(_a: object, _b: object, indices: list[int], *_: object, guidance: object) -> Tensor:
        assert guidance is None
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
    def fake(*_: object, guidance: object) -> Tensor:
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


# Stored patterns


def grid() -> Tensor:
    """Lines every 16 pixels on noise, (3, 96, 96)."""
    dark = torch.arange(96) % 16 < 3
    lines = torch.where(dark[:, None] | dark, 60.0, 160.0)
    noise = torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))
    return (lines + 15 * noise).clamp(0, 255)


@pytest.fixture(scope="module")
def regular() -> gcn.Model:
    return gcn.train(grid(), iterations=4, **SMALL_TEXTURE)


def without_pattern(model: gcn.Model) -> gcn.Model:
    checkpoint = dataclasses.replace(model.checkpoint, pattern=None, periods=(None, None))
    return gcn.Model(checkpoint, model.dtype)


def test_the_pattern_is_found_saved_and_loaded(regular: gcn.Model, tmp_path: Path) -> None:
    pattern = regular.checkpoint.pattern
    assert pattern is not None
    assert pattern.periods == pytest.approx((16, 16), abs=0.05)
    assert regular.checkpoint.periods == pattern.periods
    regular.save(tmp_path / "m.safetensors")
    loaded = gcn.load(tmp_path / "m.safetensors", device="cpu", precision="float32")
    assert loaded.checkpoint.pattern is not None
    assert torch.equal(loaded.checkpoint.pattern.cell, pattern.cell)
    pair = [m.synthesize(size=(64, 48), steps=4, kind="torch")[0] for m in (regular, loaded)]
    assert torch.equal(pair[0], pair[1])


def test_chains_are_pattern_plus_noise_where_layout_is_decided(regular: gcn.Model) -> None:
    """Each chain has a shift of its own, whatever the batch."""
    size, pattern, levels = (64, 48), regular.checkpoint.pattern, noise_levels(25, 100.0, 0.03)
    assert pattern is not None
    highest = float(projection_levels(pattern).max())
    free = next(k for k, level in enumerate(levels) if level <= highest)
    chains: list[Tensor] = []
    (image,) = regular.samples(
        size=(48, 64), indices=[2], on_state=lambda x: chains.append(x[0].clone())
    )
    chain = chains[free - 1]  # its step ends at the first level without projection
    errors = []
    for shift in (pattern_shifts(0, [index]) for index in (2, 3)):
        projection = PatternProjection(pattern, size, shift)
        missing = projection.rows[0] @ chain @ projection.columns[0].T - projection.target
        missing[:, 0, 0] = 0
        errors.append(float(missing.square().mean().sqrt()) / levels[free])
    assert errors[0] == pytest.approx(1, abs=0.15)
    assert errors[1] > 1.05 * errors[0]  # with another shift it is further away
    assert torch.equal(image, regular.synthesize(size=(48, 64), count=3, kind="torch")[2])


def test_a_start_or_a_guide_replaces_the_pattern(regular: gcn.Model) -> None:
    plain = without_pattern(regular)
    for options in ({"start": grid()}, {"guide": grid(), "size": (64, 64)}, {"size": (8, 8)}):
        pair = [next(model.samples(steps=4, **options)) for model in (regular, plain)]
        assert torch.equal(pair[0], pair[1])  # 8 pixels are half a period


def test_a_damaged_pattern_is_refused(regular: gcn.Model, tmp_path: Path) -> None:
    regular.save(tmp_path / "m.safetensors")
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
