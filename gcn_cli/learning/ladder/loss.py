"""The denoising loss and its gradient, that of a gradient by `directional_gradient`:

loss = mean over images and levels of |D_s(I + s Z) - I|^2 (s^2 + 1) / s^2.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli.model.ladder.denoiser import add_filters_
from gcn_cli.model.ladder.double_pass import directional_gradient
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.passes import Prepared, ascend, descend, total


class Denoised(NamedTuple):
    """What one batch says."""

    loss: Tensor
    scores: Tensor | None  # F of the noisy images (N,), where `times` was given
    gradients: dict[str, Tensor]  # of the loss, and of F as `times` says, by parameter name


@torch.no_grad()
def denoising_loss(
    net: LadderNet,
    clean: Tensor,
    drawn: Tensor,
    level: Tensor,
    times: Callable[[Tensor], Tensor] | None = None,
    *,
    known: Tensor | None = None,
    margin: int,
    prepared: Prepared,
) -> Denoised:
    """The loss at levels (N,) with standard noise `drawn`, and its parameter gradients.

    `prepared` are the parameters of `net` as they are now. Residuals within `margin` of the border,
    and where `known` (N, 1, H, W) is 0, do not count. `times` says of F of the noisy
    images (N,) what each counts beside the loss: its gradient so many times, (N,).
    """
    noise = level[:, None, None, None]
    sigma = (noise.square() + 1).sqrt()
    outward = noise / sigma
    noisy = clean + noise * drawn
    up = ascend(net, noisy / sigma, level.log(), prepared, learning=True)
    down = descend(net, up)
    error = net.spectrum.mean(noisy, level, net.lattice) - clean
    add_filters_(error, outward, down.slope)
    counted = torch.zeros_like(error)
    inner = slice(margin, -margin or None)
    counted[:, :, inner, inner] = 1 / error[:, :, inner, inner].numel()
    if known is not None:
        counted.mul_(known).div_(counted.sum())
    loss = (error.square() / outward.square() * counted).sum()
    # v = dloss / d grad F; brought to one for narrow number formats, and back after.
    along = 2 * error * counted / outward
    largest = along.abs().max().clamp_min(1e-30)
    scores, beside = None, None
    if times is not None:
        scores = total(net, up)
        beside = times(scores) / largest
    gradients = directional_gradient(net, up, down, along / largest, beside)
    return Denoised(loss, scores, {name: g * largest for name, g in gradients.items()})


def counted_share(mask: Tensor | None, images: int, mine: slice, margin: int) -> Tensor:
    """Which share of all pixels that the loss counts lies in the images of `mine`, one number."""
    if mask is None:
        return torch.tensor((mine.stop - mine.start) / images)
    inner = mask[:, :, margin : -margin or None, margin : -margin or None]
    return inner[mine].sum() / inner.sum()
