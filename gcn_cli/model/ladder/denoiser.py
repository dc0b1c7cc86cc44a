"""D of a ladder, the mean of the clean image given the noisy one: Tweedie's identity.

    D(I) = I + s^2 grad log p_s(I) = K_s I + s c grad F(c I; s),    c = 1 / sqrt(s^2 + 1),

K_s Wiener's filter of the spectrum. It is R, the reconstruction of the auto-encoder, rescaled:
D = (I + s^2 R) / (s^2 + 1), R = (s^2 + 1) B.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gcn_cli.model.capture import Captured
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.passes import Prepared, ascend, descend, prepare
from gcn_cli.model.spec import Lattice


def add_filters_(linear: Tensor, outward: Tensor, slope: Tensor) -> Tensor:
    """D from K_s I: add s c grad F in place; from K_s I less anything, D less the same.

    linear: (N, C, H, W); outward: s c, (N, 1, 1, 1); slope: grad F at c I, (N, C, H, W).
    """
    return linear.addcmul_(outward, slope.to(linear.dtype))


@torch.no_grad()
def denoise_each(net: LadderNet, x: Tensor, noise: Tensor, prepared: Prepared) -> Tensor:
    """D(I), each image at its own level: (N, C, H, W), deviations (N,) -> (N, C, H, W)."""
    wide = noise[:, None, None, None]
    sigma = (wide.square() + 1).sqrt()
    slope = descend(net, ascend(net, x / sigma, noise.log(), prepared)).slope
    return add_filters_(net.spectrum.mean(x, noise, prepared.lattice), wide / sigma, slope)


def fast_denoiser(
    net: LadderNet, dtype: torch.dtype = torch.float32, lattice: Lattice | None = None
) -> Callable[[Tensor, float], Tensor]:
    """D of the ladder as it is now, as a function (N, C, H, W), noise -> (N, C, H, W).

    Parameters are copied: make it anew after they change. `dtype` is that of the maps, `lattice`
    by default that of the net.
    """
    prepared = replace(prepare(net, dtype), lattice=lattice or net.lattice)
    run = Captured(lambda x, noise: denoise_each(net, x, noise, prepared))

    def denoise(x: Tensor, noise: float) -> Tensor:
        mean = run(x, x.new_full((len(x),), noise))
        return mean.clone() if run.recorded else mean

    return denoise
