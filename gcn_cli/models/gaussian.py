"""The Gaussian part of a ladder: what the power spectrum of the data alone says of an image.

In the score f it is a fixed quadratic layer beside the filters,

    f(I; w, s) = F(c I; s) / s + <I, Q_s I> / 2,    Q_s = Id / (s^2 + 1) - (C + s^2 Id)^-1,

with C the stationary covariance of the data: a ladder whose F is 0 is the Gaussian N(0, C), noise
with the data's spectrum and random phases, and F has to learn what makes a texture more than that.
It is the same as taking such noise for the reference q. Long waves matter most here: over a crop
they are a few numbers among thousands, and filters learn them last. The mean of the clean image
given the noisy one becomes, with Wiener's filter K_s,

    D(I) = K_s I + s c grad F(c I; s),    K_s = C (C + s^2 Id)^-1.

C is diagonal in color axes and in waves: those of a torus, or else cosines, for an image that is
mirrored at its border. Power is kept for waves up and across alike, without their direction.

Aligned images have a mean image m too, which a texture has not: the Gaussian is then N(m, C),
D(I) = m + K_s (I - m) without filters, and f has <I, (C + s^2 Id)^-1 m> besides.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.chunks import Allocator, allocator_like, row_chunks
from gcn_cli.models.layers import PaddingMode

WAVES = 128  # the table's wave numbers: 0 .. WAVES stand for 0 .. 1/2 cycles a pixel
SMOOTHED = 0.25  # of a wave number, to either side, is what power is averaged over
LARGEST = 2**22  # pixels of a torus whose waves are all found at once
STEPS = 8  # power is measured in up to STEPS + 1 windows along each side


class SpectralGaussian(nn.Module):
    """Power by color axis and wave. `axes` (C, C), a row an axis; `power` (C, 129, 129).

    `middle` is the mean (C, H, W) of aligned images, None of textures. Until `fit` it is all that
    of white noise of variance 1 about 0, for which Q_s is 0.
    """

    axes: Tensor
    power: Tensor
    middle: Tensor | None

    def __init__(self, channels: int, aligned: tuple[int, int] | None = None) -> None:
        """`aligned` is the size (H, W) of aligned images, None for textures."""
        super().__init__()
        middle = None if aligned is None else torch.zeros(channels, *aligned)
        self.register_buffer("middle", middle)
        self.register_buffer("axes", torch.eye(channels))
        self.register_buffer("power", torch.ones(channels, WAVES + 1, WAVES + 1))
        self._tables: dict[tuple[object, ...], tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def fit(self, pictures: Sequence[Tensor], side: int) -> None:
        """Measure pictures (C, H, W), none smaller than `side`, in windows of that many pixels.

        What is NaN is left out; each picture needs a window without it.
        """
        pixels = torch.cat([picture.flatten(1) for picture in pictures], dim=1).to(self.power)
        pixels = pixels[:, pixels.isfinite().all(dim=0)]
        _, columns = torch.linalg.eigh(pixels @ pixels.T / pixels.shape[1])
        self.axes.copy_(columns.T)
        waves, found, count = _cosines(side, self.power), torch.zeros_like(self.power[:, :1, :1]), 0
        for window in _windows(pictures, side):
            turned = self._turned(window.to(self.power), self.axes)
            found = found + (waves @ turned @ waves.T).square().sum(dim=0)
            count += len(window)
        place = torch.arange(WAVES + 1, dtype=found.dtype, device=found.device) * (side / WAVES)
        self.power.copy_(_smoothed(_between(found / count, place, place)))
        self._tables.clear()

    @torch.no_grad()
    def fit_aligned(self, pictures: Sequence[Tensor]) -> None:
        """Measure the mean of aligned pictures (C, H, W), and the power of the rest of each."""
        stack = torch.stack(list(pictures))
        middle = stack.mean(dim=0)
        self.fit(list(stack - middle), min(middle.shape[1:]))
        self.middle = middle.to(self.power)

    def mean(
        self, x: Tensor, noise: Tensor, lattice: PaddingMode, room: Allocator | None = None
    ) -> Tensor:
        """m + K_s (I - m), the mean of clean images given noisy ones: (N, C, H, W), levels (N,).

        `room` is where it is laid, and what the waves of a large torus need on the way.
        """
        squared = noise.square()[:, None, None, None]
        seen = x if self.middle is None else x - self.middle
        made = self._filtered(seen, lattice, lambda power: power / (power + squared), room)
        return made if self.middle is None else made.add_(self.middle)

    def drawn(self, white: Tensor, noise: Tensor, lattice: PaddingMode) -> Tensor:
        """Noisy images N(0, C + s^2 Id) made of white noise (N, C, H, W), at levels (N,)."""
        squared = noise.square()[:, None, None, None]
        return self._filtered(white, lattice, lambda power: (power + squared).sqrt())

    def slope(self, x: Tensor, noise: Tensor, lattice: PaddingMode) -> Tensor:
        """Q_s I + (C + s^2 Id)^-1 m, the gradient of this part of f: (N, C, H, W), levels (N,)."""
        return self._quadratic(x, noise, lattice) + self._pull(x, noise, lattice)

    def score_map(self, x: Tensor, noise: Tensor, lattice: PaddingMode) -> Tensor:
        """What every value counts in this part of f: (N, C, H, W), levels (N,)."""
        pull = self._pull(x, noise, lattice)
        return x * (self._quadratic(x, noise, lattice) / 2 + pull)

    def _quadratic(self, x: Tensor, noise: Tensor, lattice: PaddingMode) -> Tensor:
        """Q_s I."""
        squared = noise.square()[:, None, None, None]
        return self._filtered(
            x, lattice, lambda power: (power - 1) / ((squared + 1) * (power + squared))
        )

    def _pull(self, x: Tensor, noise: Tensor, lattice: PaddingMode) -> Tensor:
        """(C + s^2 Id)^-1 m, for each of the levels; 0 of textures."""
        if self.middle is None:
            return x.new_zeros(())
        squared = noise.square()[:, None, None, None]
        middle = self.middle.to(x).expand(len(x), -1, -1, -1)
        return self._filtered(middle, lattice, lambda power: 1 / (power + squared))

    def _filtered(
        self,
        x: Tensor,
        lattice: PaddingMode,
        response: Callable[[Tensor], Tensor],
        room: Allocator | None = None,
    ) -> Tensor:
        """x with every wave multiplied by a function of its power."""
        if lattice is PaddingMode.CIRCULAR and x[0, 0].numel() > LARGEST:
            return self._filtered_in_strips(x, response, room or allocator_like(x))
        turned, (height, width) = self._turned(x, self.axes), x.shape[-2:]
        if lattice is PaddingMode.CIRCULAR:
            (power,) = self._table(height, width, x, torus=True)
            waves = torch.fft.rfft2(turned).mul_(response(power))
            made = torch.fft.irfft2(waves, s=(height, width))
        else:
            power, up, across = self._table(height, width, x, torus=False)
            made = up.T @ (up @ turned @ across.T).mul_(response(power)) @ across
        return self._turned(made, self.axes.T)

    def _filtered_in_strips(
        self, x: Tensor, response: Callable[[Tensor], Tensor], room: Allocator
    ) -> Tensor:
        """The same on a large torus: axis by axis, rows and columns a few at a time."""
        count, _, height, width = x.shape
        half = width // 2 + 1
        made = room(x.shape, x.dtype).zero_()
        waves = room((count, height, half), torch.complex64 if x.dtype is torch.float32
                     else torch.complex128)  # fmt: skip
        down = torch.fft.fftfreq(height, dtype=x.dtype, device=x.device).abs()
        along = torch.fft.rfftfreq(width, dtype=x.dtype, device=x.device)
        for number, axis in enumerate(self.axes):
            color = axis[:, None, None]
            for rows in row_chunks(height, width):
                waves[:, rows] = torch.fft.rfft((x[:, :, rows] * color).sum(dim=1))
            for columns in row_chunks(half, height):
                own = self.power[number : number + 1]
                power = _between(own, 2 * WAVES * down, 2 * WAVES * along[columns])
                passed = torch.fft.fft(waves[:, :, columns], dim=-2) * response(power)[:, 0]
                waves[:, :, columns] = torch.fft.ifft(passed, dim=-2)
            for rows in row_chunks(height, width):
                back = torch.fft.irfft(waves[:, rows], n=width)
                made[:, :, rows] += back[:, None] * color
        return made

    @staticmethod
    def _turned(x: Tensor, axes: Tensor) -> Tensor:
        """Colors (N, C, H, W) by other axes."""
        turned: Tensor = axes @ x.flatten(2)
        return turned.view(x.shape)

    def _table(self, height: int, width: int, like: Tensor, *, torus: bool) -> tuple[Tensor, ...]:
        """Power of the waves of an image of this size; of cosines, also the cosines."""
        key = (height, width, torus, like.device, like.dtype)
        if key not in self._tables:
            if torus:
                down = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device).abs()
                along = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
                made: tuple[Tensor, ...] = (
                    _between(self.power, 2 * WAVES * down, 2 * WAVES * along),
                )
            else:
                rows, columns = (
                    torch.arange(side, dtype=like.dtype, device=like.device) * (WAVES / side)
                    for side in (height, width)
                )
                cosines = _cosines(height, like), _cosines(width, like)
                made = (_between(self.power, rows, columns), *cosines)
            self._tables[key] = made
        return self._tables[key]

    def _load_from_state_dict(self, *arguments: object) -> None:
        self._tables.clear()  # made from what is now replaced
        super()._load_from_state_dict(*arguments)


def _windows(pictures: Sequence[Tensor], side: int) -> Iterator[Tensor]:
    """Windows evenly over each picture, a row of them at a time: (windows, C, side, side)."""
    for picture in pictures:
        tops, lefts = (
            sorted({(full - side) * place // STEPS for place in range(STEPS + 1)})
            for full in picture.shape[1:]
        )
        hidden = picture.isnan().any(dim=0)
        if bool(hidden.any()):
            yield _known_windows(picture, hidden, side)
            continue
        for top in tops:
            rows = picture[:, top : top + side]
            yield torch.stack([rows[:, :, left : left + side] for left in lefts])


def _known_windows(picture: Tensor, hidden: Tensor, side: int) -> Tensor:
    """As many windows with nothing hidden, evenly over all there are: (windows, C, side, side)."""
    covered = F.max_pool2d(hidden[None].float(), side, stride=1)[0]
    places = (covered == 0).nonzero()
    chosen = places[:: max(1, len(places) // (STEPS + 1) ** 2)].tolist()
    return torch.stack([picture[:, y : y + side, x : x + side] for y, x in chosen])


def _smoothed(power: Tensor) -> Tensor:
    """Power (C, R, S) averaged over neighboring waves, the more of them the shorter the waves.

    A wave that stands out from its neighbors belongs to a pattern, whose phases filters learn.
    """
    waves = torch.arange(power.shape[-1], dtype=power.dtype, device=power.device)
    radius, smooth = torch.hypot(waves[:, None], waves), power
    half = 1
    while half < SMOOTHED * WAVES:
        blurred = F.avg_pool2d(power, 2 * half + 1, 1, half, count_include_pad=False)
        smooth = torch.where(SMOOTHED * radius >= half, blurred, smooth)
        half *= 2
    return smooth


def _cosines(side: int, like: Tensor) -> Tensor:
    """The orthonormal cosine waves on `side` pixels, a row each (DCT-II)."""
    pixels = torch.arange(side, dtype=like.dtype, device=like.device)
    waves = torch.cos(math.pi / side * (pixels + 0.5) * pixels[:, None]).mul_((2 / side) ** 0.5)
    waves[0] *= 0.5**0.5
    return waves


def _between(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A table (C, R, S) read between its places: (C, rows, columns), the last ones repeated."""
    for axis, places in ((-2, rows), (-1, columns)):
        last = table.shape[axis] - 1
        below = places.floor().clamp(max=last).long()
        share = places - places.floor()
        share = share[:, None] if axis == -2 else share
        above = (below + 1).clamp(max=last)
        lower, upper = table.index_select(axis, below), table.index_select(axis, above)
        table = lower.lerp(upper, share.to(table).expand_as(lower))
    return table
