"""The Gaussian part of a noise-conditional model: the power spectrum of the data.

In the score f it is a fixed quadratic term added to the filters,

    f(I; w, s) = F(c I; s) / s + <I, Q_s I> / 2,    Q_s = Id / (s^2 + 1) - (C + s^2 Id)^-1,

with C the stationary covariance of the data. With F = 0, p_s is the Gaussian N(0, C + s^2 Id): it
has the spectrum of noisy data and random phases; the filters learn what a texture has beyond that.
Equivalently, this Gaussian is the reference q_s. The term matters most at low frequencies: these
are a few numbers among the thousands of a crop, and filters learn them last. With Wiener's filter
K_s, the posterior mean of the clean image is

    D(I) = K_s I + s c grad F(c I; s),    K_s = C (C + s^2 Id)^-1.

C is diagonal in color axes and frequencies: of the Fourier transform on a torus, of the cosine
transform for an image mirrored at its border. Power depends on the frequencies down and across,
not on the sign of the direction.

Aligned images, unlike textures, have a mean image m: the Gaussian is N(m, C + s^2 Id), D(I) = m +
K_s (I - m) without filters, and f has the term <I, (C + s^2 Id)^-1 m> as well.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.chunks import Allocator, allocator_like, row_chunks
from gcn_cli.models.layers import PaddingMode

FREQUENCIES = 128  # indices 0 .. FREQUENCIES of the power table are 0 .. 1/2 cycles per pixel
SMOOTHING = 0.25  # half width of the smoothing window, as a share of the frequency
LARGEST_FFT = 2**22  # pixels; larger tori are transformed axis by axis, in chunks
WINDOW_STEPS = 8  # power is measured in up to WINDOW_STEPS + 1 windows along each side

Response = Callable[[Tensor, Tensor], Tensor]
"""(power c, noise variance v) -> factor of a frequency."""


class SpectralGaussian(nn.Module):
    """Power of each color axis and frequency; a mean image where images are aligned.

    `color_axes` (C, C) has an axis per row; `power` is (C, 129, 129); `mean_image` is (C, H, W) for
    aligned images, None for textures. Before `fit` it is white noise of variance 1 about 0, for
    which Q_s is 0. Noise deviations `noise` are (N,), one for each image.
    """

    color_axes: Tensor
    power: Tensor
    mean_image: Tensor | None

    def __init__(self, channels: int, image_size: tuple[int, int] | None = None) -> None:
        """`image_size` (H, W) of aligned images, None for textures."""
        super().__init__()
        mean_image = None if image_size is None else torch.zeros(channels, *image_size)
        self.register_buffer("mean_image", mean_image)
        # torch.eye on the meta device would import the compiler of PyTorch, which takes seconds.
        self.register_buffer("color_axes", torch.zeros(channels, channels).fill_diagonal_(1))
        self.register_buffer("power", torch.ones(channels, FREQUENCIES + 1, FREQUENCIES + 1))
        self._tables: dict[tuple[object, ...], tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def fit(
        self, images: Sequence[Tensor], side: int, known: Sequence[Tensor] | None = None
    ) -> None:
        """Measure color axes and power of images (C, H, W) in windows of `side` x `side` pixels.

        known: masks (H, W) of the pixels to use, by default all. Each image must have a window of
        known pixels.
        """
        known = known or [torch.ones_like(image[0], dtype=torch.bool) for image in images]
        pixels = torch.cat(
            [image[:, mask] for image, mask in zip(images, known, strict=True)], dim=1
        ).to(self.power)
        _, columns = torch.linalg.eigh(pixels @ pixels.T / pixels.shape[1])
        self.color_axes.copy_(columns.T)
        cosines = _cosines(side, self.power)
        total, count = torch.zeros_like(self.power[:, :1, :1]), 0
        for windows in _windows(images, known, side):
            rotated = self._rotated(windows.to(self.power), self.color_axes)
            total = total + (cosines @ rotated @ cosines.T).square().sum(dim=0)
            count += len(windows)
        index = torch.arange(FREQUENCIES + 1, dtype=total.dtype, device=total.device)
        index *= side / FREQUENCIES
        self.power.copy_(_smoothed(_interpolate(total / count, index, index)))
        self._tables.clear()

    @torch.no_grad()
    def fit_aligned(self, images: Sequence[Tensor]) -> None:
        """Measure the mean of aligned images (C, H, W), and the power of the deviations from it."""
        stack = torch.stack(list(images))
        mean_image = stack.mean(dim=0)
        self.fit(list(stack - mean_image), min(mean_image.shape[1:]))
        self.mean_image = mean_image.to(self.power)

    def posterior_mean(
        self,
        x: Tensor,
        noise: Tensor,
        padding_mode: PaddingMode,
        allocator: Allocator | None = None,
    ) -> Tensor:
        """m + K_s (I - m), the posterior mean of the clean images: (N, C, H, W) both.

        `allocator` provides the memory of a large torus: of the result and of its transform.
        """
        deviation = x if self.mean_image is None else x - self.mean_image
        mean = self._filter(deviation, noise, padding_mode, lambda c, v: c / (c + v), allocator)
        return mean if self.mean_image is None else mean.add_(self.mean_image)

    def noisy_sample(self, white: Tensor, noise: Tensor, padding_mode: PaddingMode) -> Tensor:
        """Samples of N(0, C + s^2 Id) from white noise: (N, C, H, W) both."""
        return self._filter(white, noise, padding_mode, lambda c, v: (c + v).sqrt())

    def score_gradient(self, x: Tensor, noise: Tensor, padding_mode: PaddingMode) -> Tensor:
        """Q_s I + (C + s^2 Id)^-1 m, the gradient of this part of f: (N, C, H, W) both."""
        return self._quadratic(x, noise, padding_mode) + self._linear(x, noise, padding_mode)

    def score_map(self, x: Tensor, noise: Tensor, padding_mode: PaddingMode) -> Tensor:
        """Contribution of each value of x to this part of f: (N, C, H, W) both."""
        linear = self._linear(x, noise, padding_mode)
        return x * (self._quadratic(x, noise, padding_mode) / 2 + linear)

    def _quadratic(self, x: Tensor, noise: Tensor, padding_mode: PaddingMode) -> Tensor:
        """Q_s I."""
        return self._filter(x, noise, padding_mode, lambda c, v: (c - 1) / ((v + 1) * (c + v)))

    def _linear(self, x: Tensor, noise: Tensor, padding_mode: PaddingMode) -> Tensor:
        """(C + s^2 Id)^-1 m; 0 for textures."""
        if self.mean_image is None:
            return x.new_zeros(())
        mean_image = self.mean_image.to(x).expand(len(x), -1, -1, -1)
        return self._filter(mean_image, noise, padding_mode, lambda c, v: 1 / (c + v))

    def _filter(
        self,
        x: Tensor,
        noise: Tensor,
        padding_mode: PaddingMode,
        response: Response,
        allocator: Allocator | None = None,
    ) -> Tensor:
        """Multiply each frequency of x by `response`(its power, s^2)."""
        height, width = x.shape[-2:]
        variance = noise.square()[:, None, None, None]
        if padding_mode is PaddingMode.CIRCULAR and height * width > LARGEST_FFT:
            return self._filter_in_chunks(x, variance, response, allocator or allocator_like(x))
        rotated = self._rotated(x, self.color_axes)
        if padding_mode is PaddingMode.CIRCULAR:
            (power,) = self._table(height, width, x, torus=True)
            transform = torch.fft.rfft2(rotated).mul_(response(power, variance))
            filtered = torch.fft.irfft2(transform, s=(height, width))
        else:
            power, rows, columns = self._table(height, width, x, torus=False)
            transform = (rows @ rotated @ columns.T).mul_(response(power, variance))
            filtered = rows.T @ transform @ columns
        return self._rotated(filtered, self.color_axes.T)

    def _filter_in_chunks(
        self, x: Tensor, variance: Tensor, response: Response, allocator: Allocator
    ) -> Tensor:
        """`_filter` on a large torus: axis by axis, in chunks of rows and columns."""
        count, _, height, width = x.shape
        half = width // 2 + 1
        filtered = allocator(x.shape, x.dtype).zero_()
        transform = allocator((count, height, half), x.dtype.to_complex())
        down, across = _fft_indices(height, width, x)
        for index, axis in enumerate(self.color_axes):
            color = axis[:, None, None]
            for rows in row_chunks(height, width):
                transform[:, rows] = torch.fft.rfft((x[:, :, rows] * color).sum(dim=1))
            for columns in row_chunks(half, height):
                power = _interpolate(self.power[index : index + 1], down, across[columns])
                factor = response(power, variance)[:, 0]
                chunk = torch.fft.fft(transform[:, :, columns], dim=-2) * factor
                transform[:, :, columns] = torch.fft.ifft(chunk, dim=-2)
            for rows in row_chunks(height, width):
                values = torch.fft.irfft(transform[:, rows], n=width)
                filtered[:, :, rows] += values[:, None] * color
        return filtered

    @staticmethod
    def _rotated(x: Tensor, axes: Tensor) -> Tensor:
        """Colors of (N, C, H, W) with respect to other axes, the rows of (C, C)."""
        rotated: Tensor = axes @ x.flatten(2)
        return rotated.view(x.shape)

    def _table(self, height: int, width: int, like: Tensor, *, torus: bool) -> tuple[Tensor, ...]:
        """Power of each frequency of an image; off the torus also the two cosine transforms."""
        key = (height, width, torus, like.device, like.dtype)
        if key not in self._tables:
            if torus:
                self._tables[key] = (_interpolate(self.power, *_fft_indices(height, width, like)),)
            else:
                rows, columns = (
                    torch.arange(side, dtype=like.dtype, device=like.device) * (FREQUENCIES / side)
                    for side in (height, width)
                )
                power = _interpolate(self.power, rows, columns)
                self._tables[key] = (power, _cosines(height, like), _cosines(width, like))
        return self._tables[key]

    def _load_from_state_dict(self, *arguments: object) -> None:
        self._tables.clear()  # they depend on the replaced buffers
        super()._load_from_state_dict(*arguments)


def _windows(images: Sequence[Tensor], known: Sequence[Tensor], side: int) -> Iterator[Tensor]:
    """Windows spread evenly over each image, in batches (windows, C, side, side).

    `known` has a mask (H, W) for each image; only windows of known pixels are used.
    """
    for image, mask in zip(images, known, strict=True):
        if not bool(mask.all()):
            unknown = F.max_pool2d((~mask)[None].float(), side, stride=1)[0]
            corners = (unknown == 0).nonzero()
            used = corners[:: max(1, len(corners) // (WINDOW_STEPS + 1) ** 2)].tolist()
            yield torch.stack([image[:, y : y + side, x : x + side] for y, x in used])
            continue
        tops, lefts = (
            sorted({(full - side) * step // WINDOW_STEPS for step in range(WINDOW_STEPS + 1)})
            for full in image.shape[1:]
        )
        for top in tops:
            rows = image[:, top : top + side]
            yield torch.stack([rows[:, :, left : left + side] for left in lefts])


def _smoothed(power: Tensor) -> Tensor:
    """Power (C, R, S) averaged over a window whose width is proportional to the frequency.

    A frequency that stands out from its neighbors belongs to a pattern, whose phases the filters
    learn.
    """
    indices = torch.arange(power.shape[-1], dtype=power.dtype, device=power.device)
    radius, smoothed = torch.hypot(indices[:, None], indices), power
    half = 1
    while half < SMOOTHING * FREQUENCIES:
        averaged = F.avg_pool2d(power, 2 * half + 1, 1, half, count_include_pad=False)
        smoothed = torch.where(SMOOTHING * radius >= half, averaged, smoothed)
        half *= 2
    return smoothed


def _fft_indices(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in the power table of the frequencies of `rfft2`: (H,) and (W // 2 + 1,)."""
    down = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device).abs()
    across = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
    return 2 * FREQUENCIES * down, 2 * FREQUENCIES * across


def _cosines(side: int, like: Tensor) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of `side` pixels, a frequency per row."""
    pixels = torch.arange(side, dtype=like.dtype, device=like.device)
    cosines = torch.cos(math.pi / side * (pixels + 0.5) * pixels[:, None]).mul_((2 / side) ** 0.5)
    cosines[0] *= 0.5**0.5
    return cosines


def _interpolate(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Linear interpolation of a table (C, R, S) at fractional indices: (C, rows, columns).

    Beyond the table its last values are repeated.
    """
    for axis, indices in ((-2, rows), (-1, columns)):
        last = table.shape[axis] - 1
        low = indices.floor().clamp(max=last).long()
        weight = indices - indices.floor()
        weight = weight[:, None] if axis == -2 else weight
        high = (low + 1).clamp(max=last)
        lower, upper = table.index_select(axis, low), table.index_select(axis, high)
        table = lower.lerp(upper, weight.to(table).expand_as(lower))
    return table


def low_pass(x: Tensor, deviation: float, spacing: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Blur (..., H, W) on the torus with a Gaussian of this deviation in pixels.

    spacing: pixels between values down and across.
    """
    height, width = x.shape[-2:]
    down = torch.fft.fftfreq(height, d=spacing[0], device=x.device)[:, None]
    across = torch.fft.rfftfreq(width, d=spacing[1], device=x.device)
    response = torch.exp(-2 * (torch.pi * deviation) ** 2 * (down.square() + across.square()))
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * response, s=(height, width))
    return blurred
