"""Scattered holes: pictures filled, what is hidden left out of the loss, samples in its place."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.kinds import make_trainer
from gcn_cli.models.backprop import pack
from gcn_cli.models.layers import parse_layers
from gcn_cli.samplers.rng import named_generator
from gcn_cli.training.data import TrainingData, crop_limit, fill_holes, largest_crop
from gcn_cli.training.losses import denoising_loss


def scratched(side: int = 48) -> Tensor:
    """Noise with a line hidden in every eighth row and column: room for crops of 7."""
    picture = torch.randn(3, side, side, generator=named_generator(0, "picture"))
    picture[:, ::8] = torch.nan
    picture[:, :, ::8] = torch.nan
    return picture


CONFIG = NoiseConditionalConfig(
    layers=parse_layers("4@5,4@3/2"), crop=16, margin=2, iterations=40, batch_size=2
)


def test_a_crop_is_not_cut_to_what_scratches_leave() -> None:
    assert largest_crop(scratched()) < 8
    assert crop_limit(scratched(), 16) == 48
    corner = torch.zeros(3, 128, 128)
    corner[:, 100:, 100:] = torch.nan
    assert crop_limit(corner, 128) == largest_crop(corner) < 128


def test_holes_are_filled_from_the_picture_itself() -> None:
    picture = scratched()
    made = fill_holes(picture, named_generator(0, "x"))
    known = picture.isfinite()
    assert torch.equal(made[known], picture[known])
    found = {tuple(one.tolist()) for one in picture.flatten(1).T if bool(one.isfinite().all())}
    assert {tuple(one.tolist()) for one in made.flatten(1).T} == found
    with pytest.raises(ValueError, match="too little"):
        fill_holes(torch.full((1, 8, 8), torch.nan), named_generator(0, "x"))


def test_a_batch_says_what_of_it_is_known() -> None:
    picture = scratched()
    batches = TrainingData(
        [picture], crop=16, batch_size=4, generator=named_generator(0, "b"), flips=True
    )
    images, known = batches.observe()
    assert known is not None
    assert bool(images.isfinite().all())
    assert known.shape == (4, 1, 16, 16)
    assert set(known.flatten().tolist()) == {0.0, 1.0}
    assert 0.6 < float(known.mean()) < 0.9
    values = set(picture.flatten().tolist())
    assert all(value in values for value in images[known.expand_as(images) > 0].tolist()[:50])


def test_what_is_hidden_does_not_pull(images: Callable[..., Tensor]) -> None:
    """With half of the pixels unknown the loss is the mean over the other half."""
    _, learner = make_trainer(CONFIG, [torch.randn(3, 32, 32)], torch.device("cpu"), torch.float32)
    net = cast(Any, learner).net.double()
    clean, drawn = images(2, 3, 16, 16), images(2, 3, 16, 16, seed=1)
    level = torch.tensor([0.5, 1.0], dtype=torch.float64)
    known = torch.ones(2, 1, 16, 16, dtype=torch.float64)
    known[..., :8] = 0

    def loss(mask: Tensor | None) -> float:
        prepared = pack(net, torch.float64)
        found = denoising_loss(net, clean, drawn, level, known=mask, margin=0, prepared=prepared)
        return float(found.loss)

    both = (loss(known) + loss(1 - known)) / 2
    assert both == pytest.approx(loss(None), rel=1e-9)
    assert loss(known) != pytest.approx(loss(None), rel=1e-6)


def test_samples_take_the_place_of_what_is_hidden_and_a_training_goes_on() -> None:
    def begun() -> Any:
        return make_trainer(CONFIG, [scratched()], torch.device("cpu"), torch.float32)[1]

    through = begun()
    first = through.observed.pictures[0].clone()
    for iteration in range(1, 31):
        through.step(iteration)
    renewed = through.observed.pictures[0]
    known = scratched().isfinite()
    assert torch.equal(renewed[known], first[known])
    assert not torch.equal(renewed[~known], first[~known])
    assert through.imputation.renewed == 2

    stopped = begun()
    for iteration in range(1, 16):
        stopped.step(iteration)
    state = {k: v.clone() for k, v in stopped.state().items()}
    again = begun()
    again.load_state(state)
    for iteration in range(16, 31):
        again.step(iteration)
    ours, theirs = again.state(), through.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
