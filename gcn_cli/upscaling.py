"""Upscaling: a large image, sampled from a model, whose blocks have a given small image as means.

The model is of the same texture at the larger scale. With A the mean over blocks of k x k pixels,
y = A I is known. Chains at noise level s are a clean image plus noise, and the posterior mean keeps
what is known of the clean image,

    D(I | y) = D(I) + A' (y - A D(I)),    A' repeats each pixel k x k times,

as in a repair (`samplers.guidance`). So details that the small image does not have are those of the
texture, and agree with it.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import InputError
from gcn_cli.images import Image
from gcn_cli.inpaint import SourceImages, find_seamless
from gcn_cli.options import ReconstructOptions, SampleOptions
from gcn_cli.samplers.guidance import KnownMeans
from gcn_cli.synthesis import (
    OnEvaluation,
    evaluation_counter,
    placement,
    plan_tiling,
    sampling_size,
    to_finished_pixels,
)

START_LEVEL = 3.0  # noise level of the first step: details of small blocks are decided below
STEPS = 14
TEMPERATURE = 0.4
"""Closer to the truth than 1, and a little softer: docs/experiments.md has the figures."""
BISECTIONS = 60


def upscale(
    checkpoint: Checkpoint,
    source: SourceImages,
    options: ReconstructOptions,
    dtype: torch.dtype,
    on_step: OnEvaluation | None = None,
) -> Iterator[Tensor]:
    """`options.count` variants of an image, larger by `options.upscale`, (C, H, W) in 0..255.

    Channels and transparency are those of the source; the latter is repeated. Raises InputError for
    models of aligned objects, and for models that cannot keep what is known.
    """
    kind, config, factor = checkpoint.kind, checkpoint.config, options.upscale
    assert factor is not None
    if not kind.keeps_known_pixels or config.head:
        raise InputError(
            f"--upscale {factor}: needs a texture model with noise levels, such as that of "
            "--preset default"
        )
    seamless = options.seamless
    if seamless is None:
        whole = torch.ones(source.pixels.shape[1:], dtype=torch.bool)
        seamless = find_seamless(source.pixels, whole)
    sampling = SampleOptions(
        seed=options.seed or 0,
        steps=options.steps or STEPS,
        seamless=seamless,
        start=source.pixels,
        noise_level=START_LEVEL,
        temperature=TEMPERATURE if options.temperature is None else options.temperature,
    )
    height, width = (factor * side for side in source.pixels.shape[1:])
    size = sampling_size(checkpoint, sampling, (height, width))
    place = placement(checkpoint, sampling, (size[0] // factor, size[1] // factor))
    small = place(checkpoint.normalization.to_model(source.pixels))[None].to(kind.device)
    known = KnownMeans(small, factor)
    phases = checkpoint.phases(known.repeated)
    extra_bytes = 12 * config.channel_count * math.prod(size)
    plan = plan_tiling(kind, sampling, size, dtype, "auto", extra_bytes=extra_bytes)
    count = options.count or 1
    callback = evaluation_counter(on_step, count * kind.evaluations(sampling))
    for index in range(count):
        x = kind.sample(
            sampling, [index], known.repeated, plan, dtype, callback, known=known, phases=phases
        )
        result = to_finished_pixels(checkpoint, x)[0, :, :height, :width]
        yield source.restore(result, factor=factor)


def keep_means(result: Tensor, image: Image, factor: int) -> Tensor:
    """Pixels (C, H, W) moved so that the means of their blocks are those of an image, rounded.

    For a bit depth of 8 or 16 they become values of such a file, whose blocks have the sum of
    factor^2 times the image's value, exactly. Each pixel changes as little as that takes. An alpha
    channel that the image does not have is unchanged.
    """
    if len(result) > len(image.pixels):
        colors = keep_means(result[: len(image.pixels)], image, factor)
        return torch.cat([colors, result[len(image.pixels) :]])
    largest = 65535 if image.bit_depth == 16 else 255
    means = (image.pixels.double() * largest / 255).round()
    values = result.double() * largest / 255
    blocks = F.pixel_unshuffle(values[:, None], factor)  # (C, k^2, h, w)
    low, high = (means - part for part in (blocks.amax(dim=1), blocks.amin(dim=1)))
    for _ in range(BISECTIONS):  # of the shift of each block, as values are clipped
        middle = (low + high) / 2
        too_low = (blocks + middle[:, None]).clamp(0, largest).mean(dim=1) < means
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    blocks = (blocks + high[:, None]).clamp(0, largest)
    whole = blocks.floor()
    lacking = (factor**2 * means - whole.sum(dim=1)).round()  # ones to add
    order = (blocks - whole).argsort(dim=1, descending=True).argsort(dim=1)
    whole += order < lacking[:, None]
    return (F.pixel_shuffle(whole, factor)[:, 0] * 255 / largest).to(result)
