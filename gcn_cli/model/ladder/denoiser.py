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
    slope = _slope(net, x / sigma, noise.log(), prepared)
    return add_filters_(net.spectrum.mean(x, noise, prepared.lattice), wide / sigma, slope)


def _slope(net: LadderNet, z: Tensor, log_noise: Tensor, prepared: Prepared) -> Tensor:
    """grad F of scaled images, on a torus of any size.

    Maps close on a torus whose sides are multiples of the total stride. Any other is laid out
    further, the image again and again, until no pixel of one copy is reached by the end: each gets
    the F of the endless pattern. It costs the margin.
    """
    stride = net.total_stride
    rest = [side % stride for side in z.shape[-2:]]
    if prepared.lattice is not Lattice.CIRCULAR or rest == [0, 0]:
        return descend(net, ascend(net, z, log_noise, prepared)).slope
    reach = -(-net.receptive_fields()[-1] // (2 * stride)) * stride
    cuts = []
    for axis, left in zip((-2, -1), rest, strict=True):
        side = z.shape[axis]
        before = reach if left else 0
        whole = -(-(side + 2 * before) // stride) * stride
        places = torch.arange(-before, whole - before, device=z.device) % side
        z = z.index_select(axis, places)
        cuts.append(slice(before, before + side))
    slope = descend(net, ascend(net, z, log_noise, prepared)).slope
    return slope[:, :, cuts[0], cuts[1]]


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
