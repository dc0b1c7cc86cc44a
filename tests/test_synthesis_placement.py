"""Where a start, a guide and a mask lie on a canvas of which the border is cut off."""

import pytest
import torch

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.images import Normalization
from gcn_cli.kinds import build_kind
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.options import SampleOptions, Seamless
from gcn_cli.synthesis import GUIDE_CONTRAST, Steering, _share, placed, placing, samples

SIDE = 128
SCALE = 20.0
QUARTER = slice(3 * SIDE // 4, SIDE)


def checkpoint(mean: float = 100.0) -> Checkpoint:
    """An untrained ladder of white data: what it makes is noise, and what it is steered with."""
    config = NoiseConditionalConfig(layers=parse_layers("8@5,8@3/2"), octaves=1)
    family = build_kind(config, (SIDE, SIDE))
    return Checkpoint(family, Normalization((mean,) * 3, (SCALE,) * 3), (SIDE, SIDE))


def quarter(axis: int = -1) -> torch.Tensor:
    """Black (3, SIDE, SIDE), the last quarter along an axis white."""
    white = torch.zeros(3, SIDE, SIDE)
    white.narrow(axis, QUARTER.start, SIDE // 4).fill_(255)
    return white


def sample(request: SampleOptions, **words: object) -> torch.Tensor:
    (pixels,) = samples(checkpoint(), request, [0], torch.float32, **words)  # type: ignore[arg-type]
    return pixels


def start(height: int, width: int) -> torch.Tensor:
    """A picture whose pixels all differ from their neighbors."""
    return 100 + SCALE * torch.randn(
        3, height, width, generator=torch.Generator().manual_seed(1)
    ).clamp(-3, 3)


@pytest.mark.parametrize(
    ("seamless", "lattice", "size"),
    [
        ("off", None, (SIDE, SIDE)),
        ("x", None, (SIDE, SIDE)),
        ("y", None, (SIDE, SIDE)),
        ("off", None, (30, 34)),
        (None, PaddingMode.REFLECT, (31, 34)),
        (None, PaddingMode.ZERO, (33, 35)),
        ("both", None, (SIDE, SIDE)),
    ],
)
def test_a_picture_that_chains_start_from_stays_in_its_place(
    seamless: Seamless | None, lattice: PaddingMode | None, size: tuple[int, int]
) -> None:
    """With hardly any noise put on, what is made is the start."""
    picture = start(*size)
    request = SampleOptions(
        size=size, start="picture", level=0.03, steps=1, seamless=seamless, lattice=lattice
    )
    off = (sample(request, start=picture) - picture) / SCALE
    assert off.shape == picture.shape
    assert float(off.square().mean().sqrt()) < 0.05


@pytest.mark.parametrize(("seamless", "axis"), [("off", -1), ("off", -2), ("y", -1), ("x", -2)])
def test_the_last_quarter_of_a_guide_is_the_last_quarter_of_the_sample(
    seamless: Seamless, axis: int
) -> None:
    request = SampleOptions(seamless=seamless, steps=6)
    guided = sample(request, control=Steering(guide=quarter(axis), strength=1.0))
    shift = (guided - sample(request)).mean(dim=0).movedim(axis, -1).mean(dim=0)
    # The Gaussian that leaves large shapes has a deviation of 12 pixels.
    assert float(shift[-8:].mean()) > 10
    assert float(shift[40:70].mean()) < 0
    # What is beyond the first side is the first side's own mirror, not the last one.
    assert float(shift[:8].mean()) < 0


@pytest.mark.parametrize("seamless", ["off", "both"])
def test_mean_and_contrast_of_a_guide_are_those_of_the_picture(seamless: Seamless) -> None:
    model, size = checkpoint(), (SIDE, SIDE)
    canvas = model.family.canvas(SampleOptions(seamless=seamless), size)
    assert (canvas == size) == (seamless == "both")
    place = placing(model, SampleOptions(seamless=seamless), canvas)
    shapes = Steering(guide=quarter())._guide(model, size, place).shapes
    assert tuple(shapes.shape[2:]) == canvas
    kept = shapes[:, :, :SIDE, :SIDE]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-5)
    assert float(kept.std()) == pytest.approx(GUIDE_CONTRAST, rel=1e-4)


@pytest.mark.parametrize(("seamless", "lattice"), [("off", None), (None, PaddingMode.REFLECT)])
def test_a_second_model_is_where_the_mask_is_white(
    seamless: Seamless | None, lattice: PaddingMode | None
) -> None:
    size = (SIDE - 1, SIDE - 1)
    control = Steering(other=checkpoint(200.0), mask=quarter())
    blended = sample(
        SampleOptions(size=size, seamless=seamless, lattice=lattice, steps=4), control=control
    )
    columns = blended.mean(dim=(0, 1))
    assert float(columns[QUARTER.start + 12 : -12].mean()) == pytest.approx(200, abs=5)
    assert float(columns[24 : QUARTER.start - 16].mean()) == pytest.approx(100, abs=5)
    if seamless == "off":
        assert float(columns[-6:].mean()) == pytest.approx(200, abs=8)
        assert float(columns[:6].mean()) == pytest.approx(100, abs=8)


def test_a_mask_is_as_large_as_the_picture_and_mirrored_beyond() -> None:
    canvas = (SIDE, SIDE + 64)
    share = _share(quarter(), (SIDE, SIDE), lambda x: placed(x, canvas, torus=True))
    assert tuple(share.shape) == canvas
    row = share[0]
    assert float(row[QUARTER.start - 1 : QUARTER.start + 1].mean()) == pytest.approx(0.5, abs=0.02)
    assert float(row[SIDE]) == pytest.approx(1, abs=1e-3)  # the mirror of white
    assert float(row[0]) == pytest.approx(0, abs=1e-3)  # no white from beyond
    assert float(row[-1]) == pytest.approx(0, abs=1e-3)


def test_beyond_a_picture_lies_its_mirror() -> None:
    line = torch.arange(4.0)[None]
    assert placed(line, (1, 11), torus=False)[0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]
    # On a torus three of seven pixels are those before the first.
    assert placed(line, (1, 11), torus=True)[0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 3, 2, 1]
    assert placed(line.T, (5, 1), torus=True)[:, 0].tolist() == [0, 1, 2, 3, 2]
    assert placed(torch.ones(1, 1), (3, 2), torus=True).tolist() == [[1, 1]] * 3


def test_a_picture_as_large_as_its_canvas_is_left_alone() -> None:
    picture = torch.rand(3, 5, 7)
    for torus in (True, False):
        assert placed(picture, (5, 7), torus=torus) is picture
