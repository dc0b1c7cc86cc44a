"""D of a ladder, the mean of the clean image given the noisy one: Tweedie's identity.

    D(I) = I + s^2 grad log p_s(I) = K_s I + s c grad F(c I; s),    c = 1 / sqrt(s^2 + 1),

K_s Wiener's filter of the spectrum. It is R, the reconstruction of the auto-encoder, rescaled:
D = (I + s^2 R) / (s^2 + 1), R = (s^2 + 1) B.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli.model.capture import Captured, one_by_one
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.octaves import composed_mean, pooled
from gcn_cli.model.ladder.passes import Prepared, ascend, descend, prepare
from gcn_cli.model.ladder.spectrum import Spectrum
from gcn_cli.model.rooms import Room
from gcn_cli.model.spec import Lattice


def add_filters_(linear: Tensor, outward: Tensor, slope: Tensor) -> Tensor:
    """D from K_s I: add s c grad F in place; from K_s I less anything, D less the same.

    linear: (N, C, H, W); outward: s c, (N, 1, 1, 1); slope: grad F at c I, (N, C, H, W).
    """
    return linear.addcmul_(outward, slope.to(linear.dtype))


@torch.no_grad()
def denoise_each(
    net: LadderNet,
    x: Tensor,
    noise: Tensor,
    prepared: Prepared,
    block: int | None = None,
    room: Room | None = None,
    on_block: Callable[[], None] | None = None,
) -> Tensor:
    """D(I), each image at its own level: (N, C, H, W), deviations (N,) -> (N, C, H, W).

    `block`: on a torus the filters look at blocks of that side, one after the other, with all that
    they can see around it: the same D, less memory. Must be a multiple of the total stride.
    `room` is where D is laid, `on_block` is called after every block.
    """
    wide = noise[:, None, None, None]
    sigma = (wide.square() + 1).sqrt()
    mean = net.spectrum.mean(x, noise, prepared.lattice, room)
    outward, log_noise = wide / sigma, noise.log()
    if prepared.lattice is not Lattice.CIRCULAR:
        slope = descend(net, ascend(net, x / sigma, log_noise, prepared)).slope
        return add_filters_(mean, outward, slope)
    for up, across in _blocks(x, block, net.total_stride, net.reach()):
        seen = across.taken(up.taken(x, -2), -1) / sigma
        slope = descend(net, ascend(net, seen, log_noise, prepared)).slope
        own = mean[:, :, up.own, across.own]
        add_filters_(own, outward, slope[:, :, up.inside, across.inside])
        if on_block is not None:
            on_block()
    return mean


class _Part(NamedTuple):
    """A part of one axis: which pixels it is, what is looked at for it, where it lies in that."""

    own: slice
    inside: slice
    seen: range | None  # places on the endless axis; None for the axis as it is

    def taken(self, x: Tensor, axis: int) -> Tensor:
        """What is looked at, of an image."""
        if self.seen is None:
            return x
        # Made where it is used: a copy from the host cannot be part of a captured step.
        places = torch.arange(self.seen.start, self.seen.stop, device=x.device)
        return x.index_select(axis, places % x.shape[axis])


def _blocks(x: Tensor, block: int | None, stride: int, reach: int) -> Iterator[tuple[_Part, _Part]]:
    """Rows and columns of every block of images (N, C, H, W)."""
    rows, columns = (_parts(side, block, stride, reach) for side in x.shape[-2:])
    return itertools.product(rows, columns)


def _parts(side: int, block: int | None, stride: int, reach: int) -> list[_Part]:
    """An axis of a torus in blocks; by default, and where a block holds all, in one piece.

    Maps close on a torus whose sides are multiples of the total stride: such an axis is taken as it
    is. Any other, and any block, is laid out further by `reach`, the axis again and again, until no
    pixel is reached by the end: each gets the F of the endless pattern. It costs the margin.
    """
    length = side if block is None else min(block, side)
    if length == side and side % stride == 0:
        return [_Part(slice(0, side), slice(0, side), None)]
    parts = []
    for first in range(0, side, length):
        own = min(length, side - first)
        whole = -(-(own + 2 * reach) // stride) * stride
        seen = range(first - reach, first - reach + whole)
        parts.append(_Part(slice(first, first + own), slice(reach, reach + own), seen))
    return parts


def fast_denoiser(
    net: LadderNet,
    dtype: torch.dtype = torch.float32,
    lattice: Lattice | None = None,
    block: int | None = None,
    room: Room | None = None,
    on_block: Callable[[], None] | None = None,
) -> Callable[[Tensor, float], Tensor]:
    """D of the ladder as it is now, as a function (N, C, H, W), noise -> (N, C, H, W).

    Parameters are copied: make it anew after they change. `dtype` is that of the maps, `lattice`
    by default that of the net; `block`, `room` and `on_block` as in `denoise_each`. Coarser
    ladders answer at their levels. On a GPU images are looked at one by one.
    """
    nets, handed = net.octaves(), net.handed_over()
    made = _one_ladder(nets[-1], dtype, lattice, block, room, None if handed else on_block)
    for number in reversed(range(len(handed))):
        counted = on_block if number == 0 else None
        own = _one_ladder(nets[number], dtype, lattice, block, room, counted)
        above, spectrum = _Above(made, *handed[number]), nets[number].spectrum
        made = _handing_over(own, above, spectrum, lattice or net.lattice, room, block, counted)
    return one_by_one(made, net.weights[0].device)


class _Above(NamedTuple):
    """D of the coarser ladder, the level above which it answers, the contrast of its data."""

    denoise: Callable[[Tensor, float], Tensor]
    handover: float
    contrast: float


def _handing_over(
    denoise: Callable[[Tensor, float], Tensor],
    above: _Above,
    spectrum: Spectrum,
    lattice: Lattice,
    room: Room | None,
    block: int | None,
    on_block: Callable[[], None] | None,
) -> Callable[[Tensor, float], Tensor]:
    """D of a ladder up to the handover, from there on that of the coarser one."""
    contrast = above.contrast

    def composed(x: Tensor, noise: float) -> Tensor:
        if noise <= above.handover:
            return denoise(x, noise)
        coarse = above.denoise(contrast * pooled(x), contrast * noise / 2)
        made = composed_mean(spectrum, x, noise, coarse, contrast, lattice, room)
        if on_block is not None and block is not None:  # as many as are counted on
            for _ in range(math.prod(-(-side // block) for side in x.shape[-2:])):
                on_block()
        return made

    return composed


def _one_ladder(
    net: LadderNet,
    dtype: torch.dtype,
    lattice: Lattice | None,
    block: int | None,
    room: Room | None,
    on_block: Callable[[], None] | None = None,
) -> Callable[[Tensor, float], Tensor]:
    """`fast_denoiser` of a ladder by itself."""
    prepared = replace(prepare(net, dtype, repeatable=True), lattice=lattice or net.lattice)
    if block is not None:  # few large steps, which nothing is gained by recording
        return lambda x, noise: denoise_each(
            net, x, x.new_full((len(x),), noise), prepared, block, room, on_block
        )
    run = Captured(lambda x, noise: denoise_each(net, x, noise, prepared))

    def denoise(x: Tensor, noise: float) -> Tensor:
        mean = run(x, x.new_full((len(x),), noise))
        return mean.clone() if run.recorded else mean

    return denoise
