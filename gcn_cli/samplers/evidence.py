"""Log likelihood ratios of images under models given by their denoisers.

With D_s the posterior mean at noise deviation s and g = 1 / s^2,

    log p(x) = constant - 1/2 integral over g of E_Z |x - D_s(x + s Z)|^2 dg,

with the same constant for all densities in the units of x (pointwise I-MMSE: Venkat and Weissman
2012; Kong, Brekelmans and Ver Steeg 2023). The difference of the integrals of two models is a log
likelihood ratio; with the same Z for both, most of the noise cancels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.models.energy import Denoiser
from gcn_cli.samplers.rng import named_generator


@torch.no_grad()
def denoising_errors(
    denoise: Denoiser, x: Tensor, levels: Sequence[float], *, draws: int, seed: int = 0
) -> Tensor:
    """E_Z |x - D_s(x + s Z)|^2 at each level s for an image (1, C, H, W): (levels,) in float64.

    The expectation is a mean over `draws` samples of Z, which are the same for every model.
    """
    errors = torch.zeros(len(levels), dtype=torch.float64)
    for index, level in enumerate(levels):
        for draw in range(draws):
            generator = named_generator(seed, f"evidence {index}", draw)
            noise = torch.randn(x.shape, generator=generator).to(x)
            residual = denoise(x + level * noise, level) - x
            errors[index] += residual.double().square().sum().cpu() / draws
    return errors


def relative_log_likelihood(errors: Tensor, levels: Sequence[float]) -> float:
    """-1/2 integral of `denoising_errors` over 1 / s^2, from the highest level to the lowest.

    Trapezoid rule in log s, where the integrand error / s^2 is smooth. Only differences between
    models have a meaning.
    """
    level = torch.tensor(levels, dtype=torch.float64)
    integrand = errors / level.square()
    steps = level.log().diff().abs()
    return -float(((integrand[1:] + integrand[:-1]) / 2 * steps).sum())
