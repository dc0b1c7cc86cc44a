"""Holes in what is observed, filled by samples of the model given the rest.

Maximum likelihood from incomplete data by stochastic expectation-maximisation: what is hidden is
drawn from what the model says of it, and the model learns on. The denoising loss leaves hidden
pixels out; the filters, and the likelihood, see a picture without holes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.learning.batches import Batches
from gcn_cli.model.ladder.denoiser import fast_denoiser
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.sampling.annealed import anneal, noise_levels
from gcn_cli.sampling.conditional import Given
from gcn_cli.sampling.noise import ImageNoise

RENEWALS = (0.25, 0.5, 0.78)  # shares of a training after which holes are drawn anew
LEVELS = 16
ROUNDS = 2  # of each level


class Imputation:
    """When holes are drawn anew, and how often they have been."""

    def __init__(self, seed: int, highest: float, lowest: float) -> None:
        """`highest` and `lowest` are the levels of the ladder."""
        self.seed, self.levels = seed, noise_levels(LEVELS, highest, lowest)
        self.renewed = 0

    def due(self, done: float) -> bool:
        """Whether it is time, so much of a training (0..1) being done."""
        return self.renewed < len(RENEWALS) and done > RENEWALS[self.renewed]

    @torch.no_grad()
    def renew(self, observed: Batches, model: LadderNet, dtype: torch.dtype) -> None:
        """Draw the holes of observed pictures from the model given what is known."""
        denoise = fast_denoiser(model, dtype)
        stride = model.whole_stride
        for number, hole in observed.holes.items():
            picture = observed.pictures[number]
            height, width = hole.shape
            beyond = (0, -width % stride, 0, -height % stride)
            known = F.pad(picture[None], beyond, mode="reflect")
            anew = F.pad(hole[None, None].float(), beyond, mode="reflect")[0, 0] > 0
            draws = self.seed + self.renewed
            noise = ImageNoise(draws, "imputation", [number], known.device)
            start = known + self.levels[0] * noise(known.shape)
            held = Given(known, anew).holding(denoise)
            made = anneal(start, held, self.levels, noise, rounds=ROUNDS)
            observed.pictures[number] = made[0, :, :height, :width].contiguous()
        self.renewed += 1

    def state(self, observed: Batches) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        pictures = {f"picture{k}": observed.pictures[k] for k in observed.holes}
        return {**pictures, "renewed": torch.tensor(self.renewed)}

    def load_state(self, state: dict[str, Tensor], observed: Batches) -> None:
        """Put back what `state` returned."""
        for number in observed.holes:
            observed.pictures[number] = state[f"picture{number}"].to(observed.pictures[number])
        self.renewed = int(state["renewed"])
