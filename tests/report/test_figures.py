"""Figures of a model's inside."""

from typing import Any

import torch

import gcn_cli as gcn
from gcn_cli import shading
from gcn_cli.images import TextureMap
from gcn_cli.report.figures import heat_map, in_use, unit_filters
from tests.small import SMALL_PUBLISHED, relief


def test_a_unit_of_the_first_layer_shows_its_filter() -> None:
    """dr/dx is the filter itself, wherever the unit is looked at."""
    image = 255 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {**SMALL_PUBLISHED, "size": 32, "layers": "3@5/1+2", "iterations": 2}
    model = gcn.train(image, **settings)
    x = model.to_model(image)
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        response = model.at_level().responses(leaf)[0][0, 1]
        index = int(response[4:-4, 4:-4].argmax())
        top, left = index // 24 + 4, index % 24 + 4
        (gradient,) = torch.autograd.grad(response[top, left], leaf)
    part = gradient[0, :, top - 2 : top + 3, left - 2 : left + 3]
    torch.testing.assert_close(part, model.checkpoint.kind.net.first_filters[1])
    (sheet,) = unit_filters(model.at_level(), x, [5])
    assert sheet.shape[0] == 3


def test_a_heat_map_goes_from_dark_to_bright() -> None:
    values = torch.linspace(0, 1, 100).view(10, 10)
    for limits in (None, (0.0, 1.0)):
        brightness = heat_map(values, limits).mean(dim=0).flatten()
        assert bool((brightness.diff() >= 0).all())
    assert torch.equal(heat_map(values * 0 + 5, (0.0, 1.0)), heat_map(values * 0 + 1, (0.0, 1.0)))


def test_a_material_is_lit_and_every_texture_that_tiles_is_seen_from_afar() -> None:
    sample, both = relief(96)[1:], (True, True)
    plain, material = ([TextureMap("", "RGB", kind=kind)] for kind in ("", "normal"))
    light = shading.lit(shading.material(sample, material))
    for maps, shown in ((plain, sample), (material, light)):
        (drawn, far), (_, across) = (in_use(sample, maps, axes) for axes in (both, (False, True)))
        assert (drawn is None) == (maps is plain)
        assert drawn is None or torch.equal(drawn, light.repeat(1, 2, 2))
        assert far is not None
        assert far.shape == (3, 640, 640)
        assert torch.equal(far[:, :80, :80], far[:, 560:, 160:240])
        torch.testing.assert_close(far.mean((1, 2)), shown.mean((1, 2)), atol=1, rtol=0)
        assert across is not None
        assert across.shape == (3, 80, 640)
        assert in_use(sample, maps, (False, False))[1] is None
