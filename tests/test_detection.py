"""Lattices are found in drawn patterns, and none in irregular, flat and tiny images."""

import math
import time

import pytest
import torch
from torch import Tensor

from gcn_cli.detection import Autocorrelation, find_lattice, find_pattern
from gcn_cli.errors import InputError
from tests.drawing import (
    colored_noise,
    grid,
    hexagons,
    running_bond,
    standardized,
    stripes,
    textured,
    weave,
)

Vectors = list[tuple[float, float]]


def steps_between(lattice: Tensor, vectors: Vectors) -> Tensor:
    """The expected vectors as multiples of the lattice's vectors."""
    expected = torch.tensor(vectors, dtype=torch.float64)
    steps: Tensor = torch.linalg.solve(lattice.double().T, expected.T).T
    return steps


def assert_same_lattice(lattice: Tensor | None, vectors: Vectors, rounding: float = 0.05) -> None:
    """Each basis has whole multiples of the other, to `rounding`, and cells of one size."""
    assert lattice is not None
    assert lattice.shape == (len(vectors), 2)
    steps = steps_between(lattice, vectors)
    assert float((steps - steps.round()).abs().max()) < rounding, lattice
    assert abs(float(torch.linalg.det(steps))) == pytest.approx(1, abs=2 * rounding)


@pytest.mark.parametrize(
    ("image", "vectors"),
    [
        (grid(64, 64, 16, 21.3), [(16, 0), (0, 21.3)]),
        (grid(64, 64, 28, 31), [(28, 0), (0, 31)]),  # two repetitions
        (grid(72, 120, 30, 40), [(30, 0), (0, 40)]),
        (running_bond(64, 64, 9, 18), [(9, 9), (9, -9)]),
        (running_bond(64, 96, 12, 30), [(12, 15), (12, -15)]),
        (hexagons(64, 64, 15), [(15, 0), (7.5, 15 * math.sqrt(3) / 2)]),
        (weave(64, 64, 8), [(8, 8), (8, -8)]),
    ],
    ids=["grid", "two repetitions", "few", "bond", "long bricks", "hexagons", "weave"],
)
def test_the_lattices_of_drawn_patterns(image: Tensor, vectors: Vectors) -> None:
    assert_same_lattice(find_lattice(textured(image)), vectors)


@pytest.mark.parametrize(("period", "degrees"), [(9.0, 20), (11.0, 0), (8.0, 75), (20.0, 90)])
def test_stripes_at_an_angle_repeat_along_one_axis(period: float, degrees: int) -> None:
    lattice = find_lattice(textured(stripes(64, 64, period, degrees)))
    assert lattice is not None
    assert lattice.shape == (1, 2)
    down, across = lattice[0].tolist()
    assert math.hypot(down, across) == pytest.approx(period, rel=0.05)
    assert math.degrees(math.atan2(down, across)) == pytest.approx(degrees, abs=2)


def test_unknown_pixels_are_not_looked_at() -> None:
    image, known = textured(grid(64, 64, 16, 21.3)), torch.ones(64, 64, dtype=torch.bool)
    known[10:30, 20:50] = False
    lattice = find_lattice(image.masked_fill(~known, torch.nan), known)
    assert_same_lattice(lattice, [(16, 0), (0, 21.3)])
    assert find_lattice(image, torch.zeros_like(known)) is None


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_irregular_textures_have_no_lattice(power: float) -> None:
    for seed, (height, width, channels) in enumerate([(48, 48, 1), (56, 64, 3)]):
        image = colored_noise(seed, height, width, power, channels)
        assert find_lattice(image) is None


def test_flat_and_tiny_images_have_no_lattice() -> None:
    ramp = torch.linspace(0, 1, 48).expand(1, 48, 48)
    flat = [torch.full((3, 48, 48), 5.0), ramp.square()]
    tiny = [colored_noise(0, *size, 0.0) for size in ((8, 8), (1, 300), (14, 14), (17, 40))]
    for image in flat + tiny:
        assert find_pattern([image]) is None


def test_memory_and_time_of_a_long_strip_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays have four values a pixel, not the square of the longer side."""
    sizes = []
    original = Autocorrelation.__init__

    def recorded(self: Autocorrelation, image: Tensor, known: Tensor) -> None:
        original(self, image, known)
        sizes.append(self.values.numel())

    monkeypatch.setattr(Autocorrelation, "__init__", recorded)
    started = time.monotonic()
    for width in (64, 100):
        assert find_lattice(colored_noise(0, 4096, width, 1.0)) is None
    assert_same_lattice(find_lattice(textured(grid(512, 64, 16, 16))), [(16, 0), (0, 16)])
    assert time.monotonic() - started < 20
    assert max(sizes) <= 4 * 4096 * 100


def test_large_images_are_searched_at_a_lower_resolution() -> None:
    image = standardized(grid(96, 640, 32, 40))
    assert_same_lattice(find_lattice(image), [(32, 0), (0, 40)])


def test_given_vectors_are_taken_and_an_empty_list_finds_nothing() -> None:
    image = textured(grid(64, 64, 16, 21.3))
    assert find_pattern([image], vectors=[]) is None
    found = find_pattern([image], vectors=[(16.2, 0.0), (0.0, 21.0)])
    assert found is not None
    pattern, (field,) = found
    # Registration corrects the vectors.
    assert pattern.vectors()[0] == pytest.approx((16, 0), abs=0.2)
    assert pattern.vectors()[1] == pytest.approx((0, 21.3), abs=0.2)
    assert torch.equal(field.waves, pattern.waves)


def test_images_must_share_the_pattern() -> None:
    image, other = textured(grid(64, 64, 16, 21.3)), colored_noise(1, 64, 64, 1.0)
    assert find_pattern([image, other]) is None
    with pytest.raises(InputError, match="--pattern: image 2 does not show the pattern"):
        find_pattern([image, other], vectors=[(16.0, 0.0), (0.0, 21.3)])
    found = find_pattern([image, textured(grid(70, 60, 16, 21.3), seed=1)])
    assert found is not None
    assert len(found[1]) == 2
