"""Log likelihood ratios of pictures under models that are known by their denoisers.

With D_s the mean of the clean picture given it with white noise of deviation s, and g = 1 / s^2,

    log p(x) = constant - 1/2 integral over g of E_Z |x - D_s(x + s Z)|^2 dg,

the constant the same for all densities in x's units (I-MMSE, pointwise: Venkat and Weissman 2012;
Kong, Brekelmans and Ver Steeg 2023). A difference of two models' integrals is a log likelihood
ratio; with the same Z for both, what the noise does cancels for the most part.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.samplers.annealed import Denoiser
from gcn_cli.samplers.rng import named_generator


@torch.no_grad()
def denoising_errors(
    denoise: Denoiser, x: Tensor, levels: Sequence[float], *, draws: int, seed: int = 0
) -> Tensor:
    """E_Z |x - D_s(x + s Z)|^2 at every level s, of an image (1, C, H, W): (levels,) in float64.

    Draw k at level number n is the same for every model.
    """
    found = torch.zeros(len(levels), dtype=torch.float64)
    for number, level in enumerate(levels):
        for draw in range(draws):
            generator = named_generator(seed, f"evidence {number}", draw)
            noise = torch.randn(x.shape, generator=generator).to(x)
            off = denoise(x + level * noise, level) - x
            found[number] += off.double().square().sum().cpu() / draws
    return found


def log_evidence(error: Tensor, levels: Sequence[float]) -> float:
    """-1/2 integral of `denoising_errors` over 1 / s^2, from the highest level to the lowest.

    By the trapezoid rule in log s, where the integrand error / s^2 is smooth. Means something in a
    difference only.
    """
    level = torch.tensor(levels, dtype=torch.float64)
    integrand = error / level.square()
    steps = level.log().diff().abs()
    return -float(((integrand[1:] + integrand[:-1]) / 2 * steps).sum())
