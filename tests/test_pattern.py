"""Regular patterns: phase fields, lattices on a torus, registration, and given images."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gcn_cli.models.gaussian import low_pass
from gcn_cli.pattern import (
    GRID_STEP,
    LARGEST_STRAIN,
    Pattern,
    PhaseField,
    closed_waves,
    explained_share,
    fitting_sides,
    learn_pattern,
    locate,
    mean_cell,
    register,
    strain,
    strain_on_torus,
)
from tests.drawing import colored_noise, draw_tiles, tiles

WAVES = torch.tensor([[1 / 16, 0.0], [1 / 40, 1 / 20]])  # slanted
OFFSETS = torch.tensor([0.3, 0.8])
START = PhaseField(WAVES, torch.zeros(2))


def make_pattern(waves: Tensor = WAVES, wander: float = 0.0) -> Pattern:
    cell = torch.zeros(3, *[8] * len(waves))
    return Pattern(waves, cell, torch.full((len(waves),), wander), torch.tensor(0.9))


def all_phases(field: PhaseField, height: int, width: int) -> Tensor:
    return field(torch.arange(height), torch.arange(width))[0]


def smooth_bend(height: int, width: int, size: float = 0.15) -> Tensor:
    """Half a wave down and across, in cycles: (2, H / 8, W / 8)."""
    rows = (torch.arange(height // GRID_STEP) + 0.5) * (GRID_STEP / height)
    columns = (torch.arange(width // GRID_STEP) + 0.5) * (GRID_STEP / width)
    down, across = torch.cos(math.pi * rows)[:, None], torch.cos(math.pi * columns)
    return size * torch.stack([down * across, across.square() - down.square()])


def bent_field(height: int, width: int, waves: Tensor = WAVES, size: float = 0.15) -> PhaseField:
    bend = smooth_bend(height, width, size)[: len(waves)]
    return PhaseField(waves, OFFSETS[: len(waves)], bend, (height, width))


def error_modulo_one(found: Tensor, expected: Tensor, *, up_to_constant: bool = True) -> Tensor:
    """Distance of phases (A, ...) in cycles; the constant is the origin of the cell."""
    angles = 2 * math.pi * (found - expected)
    turn = torch.complex(angles.cos(), angles.sin())
    if up_to_constant:
        turn = turn * turn.flatten(1).mean(dim=1).conj().view(-1, *[1] * (turn.ndim - 1))
    return turn.angle().abs() / (2 * math.pi)


# Phase fields


def test_phases_are_those_of_the_formula() -> None:
    """Between the centers of the grid the bend is linear, beyond them constant."""
    bend = torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]]])
    field = PhaseField(WAVES, OFFSETS, bend, (10, 16))
    rows, columns = torch.tensor([0.0, 7.5]), torch.tensor([0.0, 3.5, 7.5, 9.5, 15.0])
    expected_bend = torch.tensor([[0.0, 0.0, 0.5, 0.75, 1.0], [0.5] * 5])
    for i, y in enumerate(rows.tolist()):
        for j, x in enumerate(columns.tolist()):
            phase = WAVES @ torch.tensor([y, x]) + OFFSETS + expected_bend[:, j]
            torch.testing.assert_close(field(rows, columns)[0, :, i, j], phase)


def test_windows_of_windows_are_windows() -> None:
    field, rows, columns = bent_field(32, 48), torch.arange(5) + 0.5, torch.arange(7) - 2.0
    once = field.window(2.0, (3.0, -1.0))
    torch.testing.assert_close(once(rows, columns), field(2 * rows + 3, 2 * columns - 1))
    twice = once.window(0.5, (-0.25, 4.0))
    torch.testing.assert_close(twice(rows, columns), field(rows + 2.5, columns + 7))


def test_a_periodic_bend_closes() -> None:
    generator = torch.Generator().manual_seed(0)
    field = make_pattern(wander=0.2).on_torus((48, 40), (True, True), generator)
    assert field.bend is not None
    assert float(field.bend.std()) == pytest.approx(0.2, rel=0.1)
    rows, columns = torch.arange(48.0), torch.arange(40.0)
    first = field(rows, columns)[0]
    for moved in (field(rows + 48, columns), field(rows, columns - 80)):
        assert float(error_modulo_one(moved[0], first, up_to_constant=False).max()) < 1e-4
    # Across the border phases grow as they do inside.
    seam = field(torch.tensor([46.0, 47.0, 48.0, 49.0]), columns)[0].diff(dim=1)
    inside = field(rows, columns)[0].diff(dim=1)
    assert float(seam.max()) <= float(inside.max()) + 1e-3
    assert float(seam.min()) >= float(inside.min()) - 1e-3


def test_regularity_straightens_the_lattice() -> None:
    fields = [
        make_pattern(wander=0.2).on_torus((48, 40), (True, True), generator, regularity)
        for regularity in (0.0, 0.5, 1.0)
        if (generator := torch.Generator().manual_seed(0))
    ]
    assert fields[0].bend is not None
    assert fields[1].bend is not None
    torch.testing.assert_close(fields[1].bend, fields[0].bend / 2)
    assert fields[2].bend is None
    assert all(torch.equal(field.offsets, fields[0].offsets) for field in fields)


@pytest.mark.parametrize("bent", [False, True])
def test_a_state_restores_the_field(bent: bool) -> None:
    field = bent_field(32, 48) if bent else PhaseField(WAVES, OFFSETS)
    field = replace(field.window(0.5, (1.25, -0.1)), periodic=(bent, False))
    state = {name: tensor.clone() for name, tensor in field.state().items()}
    restored = PhaseField.from_state(state, torch.device("cpu"))
    rows, columns = torch.arange(9), torch.arange(7)
    assert torch.equal(restored(rows, columns), field(rows, columns))
    assert vars(restored).keys() == vars(field).keys()
    assert (restored.size, restored.periodic) == (field.size, field.periodic)
    assert (restored.scale, restored.origin) == (field.scale, field.origin)


# Lattices on a torus


def test_closed_waves_are_whole_along_periodic_axes() -> None:
    closed = closed_waves(WAVES, (50, 64))
    turns = closed * torch.tensor([50.0, 64.0])
    assert turns.tolist() == [[3, 0], [1, 3]]
    only_across = closed_waves(WAVES, (50, 64), (False, True))
    assert torch.equal(only_across[:, 0], WAVES[:, 0])
    assert torch.equal(only_across[:, 1], closed[:, 1])


def test_strain_is_that_of_a_stretch_or_a_shear() -> None:
    """Waves of a lattice whose vectors are stretched by 4 % down, or sheared by 3 %."""
    straight = torch.tensor([[1 / 16, 0.0], [0.0, 1 / 20]])
    stretched = torch.tensor([[1 / (1.04 * 16), 0.0], [0.0, 1 / 20]])
    assert strain(straight, stretched) == pytest.approx(0.04, rel=1e-3)
    move = torch.tensor([[1.0, 0.03], [0.0, 1.0]])
    sheared = straight @ torch.linalg.inv(move)
    assert strain(straight, sheared) == pytest.approx(0.03, rel=1e-3)
    assert strain(WAVES, WAVES @ torch.linalg.inv(move)) == pytest.approx(0.03, rel=1e-3)
    assert strain(WAVES, WAVES) == pytest.approx(0, abs=1e-6)
    assert strain(WAVES, torch.tensor([[0.0, 0.0], [0.0, 1 / 20]])) == math.inf
    assert strain(WAVES[1:], 1.02 * WAVES[1:]) == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize(
    "waves",
    [
        [[1 / 21.3, 0.0], [0.0, 1 / 13.7]],
        [[1 / 18, 1 / 30], [1 / 18, -1 / 30]],
        [[0.0, 1 / 13.0], [1 / 15.01, 1 / 26]],
        [[0.0, 1 / 13.7]],
        [[1 / 21.3, 1e-4]],
        [[1 / 40, 1 / 20]],
    ],
    ids=["grid", "bond", "hexagons", "columns", "courses", "slanted"],
)
def test_on_the_sides_that_are_named_the_lattice_closes(waves: list[list[float]]) -> None:
    pattern, size = make_pattern(torch.tensor(waves)), (100, 101)
    heights, widths = (fitting_sides(pattern, size, axis) for axis in (0, 1))
    assert heights
    assert widths
    for height in heights:
        for width in widths:
            assert strain_on_torus(pattern, (height, width)) <= LARGEST_STRAIN
    for side, sides in zip(size, (heights, widths), strict=True):
        assert min(sides) <= side <= max(sides) or len(sides) == 1


def test_vectors_are_dual_to_the_waves() -> None:
    vectors = torch.tensor(make_pattern().vectors())
    torch.testing.assert_close(WAVES @ vectors.T, torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(make_pattern().coarser(2).waves, 4 * WAVES)
    assert make_pattern(WAVES[:1]).vectors() == [pytest.approx((16, 0), abs=1e-4)]


@pytest.mark.parametrize("periodic", [(True, True), (False, True), (True, False)])
def test_an_image_is_bent_to_a_torus_where_pixels_are_missing(periodic: tuple[bool, bool]) -> None:
    height, width = 88, 96
    field = bent_field(height, width, size=0.1)
    missing = torch.ones(height, width, dtype=torch.bool)
    missing[
        8 * periodic[0] : height - 8 * periodic[0], 8 * periodic[1] : width - 8 * periodic[1]
    ] = 0
    closed = field.closed(missing, periodic)
    # Grid points next to the missing part move: look at what is further away.
    inner = tuple(
        slice(16 * p, side - 16 * p) for p, side in zip(periodic, missing.shape, strict=True)
    )
    before, after = (all_phases(f, height, width)[:, inner[0], inner[1]] for f in (field, closed))
    error = error_modulo_one(after, before, up_to_constant=False)
    assert float(error.max()) < 0.02
    rows, columns = torch.arange(float(height)), torch.arange(float(width))
    if periodic[0]:
        ends = closed(torch.tensor([-0.5, height - 0.5]), columns)[0].unbind(1)
        assert float(error_modulo_one(*ends, up_to_constant=False).max()) < 1e-4
    if periodic[1]:
        left, right = closed(rows, torch.tensor([-0.5, width - 0.5]))[0].unbind(2)
        assert float(error_modulo_one(left, right, up_to_constant=False).max()) < 1e-4
    # The lattice is squeezed where pixels are missing, nowhere torn.
    for axis, wave in ((1, WAVES[:, 0]), (2, WAVES[:, 1])):
        steps = all_phases(closed, height, width).diff(dim=axis) - wave[:, None, None]
        assert float(steps.abs().max()) < 0.06


def test_blurring_keeps_the_mean_and_a_wave_shrinks_as_known() -> None:
    wave = torch.cos(2 * math.pi * torch.arange(32.0) / 16).expand(1, 8, 32)
    blurred = low_pass(3 + wave, 5.0, (1.0, 2.5))
    shrunk = math.exp(-2 * math.pi**2 * (2 / 16) ** 2)
    torch.testing.assert_close(blurred, 3 + shrunk * wave)


# Registration


def test_the_mean_cell_of_drawn_tiles_is_the_tile() -> None:
    field = PhaseField(WAVES, OFFSETS)
    phases = all_phases(field, 64, 80)
    image, known = tiles(phases), torch.ones(64, 80, dtype=torch.bool)
    cell = mean_cell(image, known, phases)
    assert cell.shape == (3, 16, 18)  # a value about every pixel along each wave
    grid = torch.stack(
        torch.meshgrid(*(torch.arange(n) / n for n in cell.shape[1:]), indexing="ij")
    )
    expected = tiles(grid)
    assert float((cell - expected).std() / expected.std()) < 0.2  # pixels are rounded to values
    assert explained_share(image, known, cell, phases) > 0.95
    assert explained_share(image, known, cell, phases + 0.5) < 0
    noise = colored_noise(0, 64, 80, 0.0, 3)
    of_noise = mean_cell(noise, known, phases)
    assert explained_share(noise, known, of_noise, phases) < 0.2


@pytest.mark.parametrize(
    ("channels", "axes", "hole"),
    [(3, 2, False), (3, 2, True), (1, 2, False), (1, 1, False)],
    ids=["color", "hole", "gray", "stripes"],
)
def test_registration_finds_a_known_bend(channels: int, axes: int, hole: bool) -> None:
    height, width = 80, 96
    truth = bent_field(height, width, WAVES[-axes:])
    image = draw_tiles(truth, height, width, channels)
    known = torch.ones(height, width, dtype=torch.bool)
    if hole:
        known[30:50, 40:70] = False
        image = image.masked_fill(~known, torch.nan)
    start = PhaseField(WAVES[-axes:], torch.zeros(axes))
    field, cell = register(image, known, start)
    expected = all_phases(truth, height, width)
    error = error_modulo_one(all_phases(field, height, width)[:, known], expected[:, known])
    straight = error_modulo_one(all_phases(start, height, width)[:, known], expected[:, known])
    assert float(error.square().mean().sqrt()) < 0.025
    assert float(error.max()) < 0.08
    assert float(straight.square().mean().sqrt()) > 0.05
    before = mean_cell(image, known, all_phases(start, height, width))
    shares = [
        explained_share(image, known, c, all_phases(f, height, width))
        for c, f in ((before, start), (cell, field))
    ]
    assert shares[1] > shares[0] + 0.05


def test_large_images_are_registered_at_half_of_the_resolution() -> None:
    height, width = 96, 328
    truth = bent_field(height, width)
    image, known = draw_tiles(truth, height, width), torch.ones(height, width, dtype=torch.bool)
    field, cell = register(image, known, START)
    error = error_modulo_one(all_phases(field, height, width), all_phases(truth, height, width))
    assert float(error.square().mean().sqrt()) < 0.025
    assert cell.shape == (3, 16, 18)


def test_two_images_have_the_phases_of_one_cell() -> None:
    """A pattern that is learned from two images whose lattices are shifted against each other."""
    fields = [bent_field(80, 96), replace(bent_field(72, 80), offsets=OFFSETS + 0.37)]
    images = [draw_tiles(fields[0], 80, 96), draw_tiles(fields[1], 72, 80, seed=1)]
    known = [torch.ones_like(image[0], dtype=torch.bool) for image in images]
    pattern, found = learn_pattern(images, known, START)
    assert pattern.cell.shape[0] == 3
    assert float(pattern.share) > 0.8
    assert all(0 <= float(wander) < 0.1 for wander in pattern.wander)
    differences = [
        all_phases(ours, *image.shape[1:]) - all_phases(truth, *image.shape[1:])
        for ours, truth, image in zip(found, fields, images, strict=True)
    ]
    both = torch.cat([difference.flatten(1) for difference in differences], dim=1)
    error = error_modulo_one(both, torch.zeros_like(both))
    assert float(error.square().mean().sqrt()) < 0.03


@pytest.fixture(scope="module")
def learned() -> tuple[Pattern, PhaseField, PhaseField]:
    """The pattern of drawn tiles, the phases found in them, and the true ones."""
    truth = bent_field(80, 96)
    image = draw_tiles(truth, 80, 96)
    pattern, (field,) = learn_pattern([image], [torch.ones(80, 96, dtype=torch.bool)], START)
    return pattern, field, truth


@pytest.mark.parametrize("hole", [False, True])
def test_the_pattern_is_located_in_another_image(
    learned: tuple[Pattern, PhaseField, PhaseField], hole: bool
) -> None:
    """A part of another drawing, shifted and bent otherwise."""
    pattern, field, truth = learned
    other = PhaseField(WAVES, torch.tensor([0.9, 0.1]), 0.5 * truth.bend.flip(2), (80, 96))  # type: ignore[union-attr]
    image = draw_tiles(other, 80, 96, seed=5)[:, 7:67, 21:90]
    known = torch.ones(60, 69, dtype=torch.bool)
    if hole:
        known[20:40, 30:50] = False
        image = image.masked_fill(~known, torch.nan)
    located = locate(pattern, image, known)
    assert located is not None
    origin = all_phases(field, 80, 96) - all_phases(truth, 80, 96)
    shift = origin.flatten(1).median(dim=1).values[:, None, None]
    expected = all_phases(other.window(1.0, (7.0, 21.0)), 60, 69) + shift
    error = error_modulo_one(all_phases(located, 60, 69), expected, up_to_constant=False)
    assert float(error[:, known].square().mean().sqrt()) < 0.04


def test_the_pattern_is_not_located_where_it_is_not(
    learned: tuple[Pattern, PhaseField, PhaseField],
) -> None:
    pattern = learned[0]
    for power in (0.0, 1.0):
        assert locate(pattern, colored_noise(3, 64, 64, power, 3)) is None
    assert locate(pattern, torch.zeros(3, 64, 64)) is None
    other = draw_tiles(PhaseField(1.3 * WAVES.flip(1), OFFSETS), 64, 64)
    assert locate(pattern, other) is None
    nothing = torch.zeros(64, 64, dtype=torch.bool)
    assert locate(pattern, torch.zeros(3, 64, 64), nothing) is None


def test_away_from_known_pixels_the_lattice_goes_on_straight(
    learned: tuple[Pattern, PhaseField, PhaseField],
) -> None:
    """As an extension needs it: the phases 60 pixels beyond the known part, to a tenth."""
    pattern = learned[0]
    truth = PhaseField(WAVES, OFFSETS)
    image, known = draw_tiles(truth, 80, 144, seed=2), torch.ones(80, 144, dtype=torch.bool)
    known[:, 80:] = False
    located = locate(pattern, image.masked_fill(~known, 0.0), known)
    assert located is not None
    error = error_modulo_one(all_phases(located, 80, 144), all_phases(truth, 80, 144))
    assert float(error.max()) < 0.1


def test_phases_do_not_depend_on_where_memory_lies() -> None:
    """A resumed training finds the same phases, to the bit."""
    image, known = draw_tiles(bent_field(40, 48), 40, 48), torch.ones(40, 48, dtype=torch.bool)
    bends, kept = [], []
    for size in (1, 7, 30, 61, 122, 250):
        kept.append(torch.empty(size))
        _, (field,) = learn_pattern([image.clone()], [known], START)
        bends.append(field.bend)
    assert all(torch.equal(bend, bends[0]) for bend in bends)  # type: ignore[arg-type]
