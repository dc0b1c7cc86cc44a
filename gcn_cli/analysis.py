"""Analysis of models and images: facts, checks of the noise levels, anomaly maps, comparison.

`level_reports` checks the denoiser of every noise level. The error of the true posterior mean,
E|D_s(I + s Z) - I|^2, is at most the variance of the data and never falls as the noise rises; a D
that breaks this is unsound. Chains should be distributed as noisy data, so D of a chain should have
the variance of D of noisy data: lower is blurred, higher is excessive contrast.

`compare_models` gives the class posterior of the paper's first section: p(class | I) is
proportional to p_class(I) for equal priors (`samplers.evidence`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import to_json
from gcn_cli.errors import InputError
from gcn_cli.images import TextureMap
from gcn_cli.inputs import LinkedImages, to_pixels
from gcn_cli.kinds import TilingPlan
from gcn_cli.models.energy import Denoiser, energy
from gcn_cli.options import SampleOptions
from gcn_cli.reconstruction import fit_to_model, fit_to_model_with_scale
from gcn_cli.samplers.annealed import noise_levels
from gcn_cli.samplers.evidence import denoising_errors, relative_log_likelihood
from gcn_cli.samplers.rng import named_generator
from gcn_cli.synthesis import OnEvaluation, evaluation_counter

HISTORY_ROWS = 10
ERROR_TOLERANCE = 1.1  # factor by which an error may exceed its bound by chance
EXCLUDED_BORDER = 8  # 1/8 of each side is left out: an exemplar does not tile
SMOOTHING_SIDE = 17  # pixels: the energy of a filter lies at its center
UNUSUAL = 4.0  # deviations of the energy from which a pixel counts as unusual


def _map_in_words(texture_map: TextureMap) -> str:
    """The name, the kind unless that is the name, and the values of a map."""
    name, kind = texture_map.name, texture_map.kind
    words = [name, *([kind] if kind != name else []), texture_map.mode]
    words += [f"{texture_map.bit_depth} bits"]
    if texture_map.y_up is not None:
        words.append("y-up" if texture_map.y_up else "y-down")
    return " ".join(words).strip()


def _vectors(checkpoint: Checkpoint) -> list[list[float]]:
    """Vectors of repetition (across, down) in pixels of a regular pattern; empty without one."""
    pattern = checkpoint.pattern
    if pattern is None:
        return []
    vectors = sorted(pattern.vectors(), key=lambda vector: abs(vector[0]))
    return [[round(across, 2) + 0.0, round(down, 2) + 0.0] for down, across in vectors]


def model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Config, layers and training history as plain values."""
    net, (height, width) = checkpoint.kind.net, checkpoint.image_size
    history = checkpoint.history
    rows = torch.linspace(0, len(history) - 1, min(len(history), HISTORY_ROWS))
    layers: list[dict[str, Any]] = [
        {
            "layer": str(spec),
            "receptive_field": field,
            "map": f"{columns}x{rows}",
            "parameters": net.layer_parameters(index),
        }
        for index, (spec, field, (rows, columns)) in enumerate(
            zip(net.layers, net.receptive_fields(), net.map_sizes(height, width), strict=True)
        )
    ]
    stages = checkpoint.kind.stages()
    receptive_field: int | str = max(int(stage["receptive_field"]) for stage in stages)
    if net.head_parameters:
        receptive_field = f"{width}x{height}"
        head = {"layer": "head", "receptive_field": receptive_field, "map": "1"}
        layers.append({**head, "parameters": net.head_parameters})
    return {
        "config": to_json(checkpoint.config),
        "maps": [_map_in_words(texture_map) for texture_map in checkpoint.maps],
        "mean_color": list(checkpoint.normalization.mean),
        "pattern": _vectors(checkpoint),
        "iteration": checkpoint.iteration,
        "total_iterations": checkpoint.total_iterations,
        "seconds": round(checkpoint.seconds, 1),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "stages": stages,
        "receptive_field": receptive_field,
        "layers": layers,
        "history": [history[row] for row in rows.round().int().tolist()],
    }


@torch.no_grad()
def image_facts(
    checkpoint: Checkpoint, pixels: Tensor, noise_level: float | None
) -> dict[str, Any]:
    """Score, energy and share of open gates in each layer, of an image (C, H, W) in 0..255.

    A smooth gate counts by its value in 0..1.
    """
    x = checkpoint.to_model(pixels)
    density = checkpoint.density(x, noise_level)
    gates = density.activation_pattern(x)
    total = float(energy(density, x))
    return {
        "score": float(density.score(x)),
        "energy": total,
        "energy_per_pixel": total / x.numel(),
        "open_gates": [round(float(gate.float().mean()), 4) for gate in gates],
    }


def filter_sheet(checkpoint: Checkpoint) -> Tensor:
    """The filters of the first layer in a grid, each scaled to 0..255 around gray: (C, H, W)."""
    channels = 3 if checkpoint.maps[0].mode.startswith("RGB") else 1  # colors of the first map
    filters = checkpoint.kind.net.first_filters.cpu()[:, :channels]
    peak = filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    scaled = 127.5 + 127.5 * filters / peak
    return images.grid(scaled.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))


class LevelReport(NamedTuple):
    """The denoiser at one noise level. Values but the noise level are in variances of the data."""

    noise: float  # noise level, in deviations of the data
    error: float  # mean squared error of D on the exemplar with that noise
    data_variance: float  # of D of the noisy exemplar
    chain_variance: float  # of D of a chain at that level


@torch.no_grad()
def level_reports(
    checkpoint: Checkpoint,
    kept: images.Image | None,
    dtype: torch.dtype,
    on_step: OnEvaluation | None = None,
) -> list[LevelReport]:
    """A report for each noise level of sampling, from the kept exemplar and one sample of its size.

    The sample has the lattice of the exemplar. on_step(done, total) counts evaluations. Raises
    InputError for models of anything but textures, and if the run keeps no exemplar.
    """
    if not checkpoint.config.is_texture:
        raise InputError("levels: only for noise-conditional models of textures")
    if len(checkpoint.maps) > 1:
        raise InputError("levels: not for linked maps; name a model of one image with --model")
    if kept is None:
        raise InputError("levels: needs the exemplar, which the run does not keep; train it again")
    exemplar = checkpoint.to_model(fit_to_model(checkpoint, kept))
    plan, options = TilingPlan((exemplar.shape[2], exemplar.shape[3])), SampleOptions(seed=0)
    kind, phases = checkpoint.kind, checkpoint.phases(exemplar)
    chain_variances: dict[float, float] = {}
    count = evaluation_counter(on_step, 2 * kind.evaluations(options))

    def recorded(denoise: Denoiser) -> Denoiser:
        def denoise_and_record(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            chain_variances[noise] = float(mean.var())
            return mean

        return denoise_and_record

    kind.sample(options, [0], None, plan, dtype, count, guidance=recorded, phases=phases)
    denoise = kind.denoiser(options, plan, dtype, phases)
    inner, reports = _inner_part(exemplar), []
    variance = float(inner.var())
    for index, (noise, chain_variance) in enumerate(chain_variances.items()):
        generator = named_generator(0, "levels", index)
        z = torch.randn(exemplar.shape, generator=generator).to(exemplar)
        mean = _inner_part(denoise(exemplar + noise * z, noise))
        values = (float((mean - inner).square().mean()), float(mean.var()), chain_variance)
        reports.append(LevelReport(noise, *(value / variance for value in values)))
        count()
    return reports


def _inner_part(x: Tensor) -> Tensor:
    top, left = (side // EXCLUDED_BORDER for side in x.shape[2:])
    return x[:, :, top : x.shape[2] - top, left : x.shape[3] - left]


def unsound_level(reports: Sequence[LevelReport]) -> LevelReport | None:
    """The report whose error exceeds its bound most; None if the denoiser is sound.

    The bound is the variance of the data, and the error at any higher noise level.
    """
    worst, largest_ratio, bound = None, ERROR_TOLERANCE, 1.0
    for report in sorted(reports, key=lambda report: -report.noise):
        if report.error > largest_ratio * bound:
            worst, largest_ratio = report, report.error / bound
        bound = min(bound, max(report.error, 1e-3))
    return worst


class AnomalyMap(NamedTuple):
    """Local energy of an image compared with the exemplar. (H, W) is the size for the model."""

    deviations: Tensor  # (H, W), in standard deviations of the local energy of the exemplar
    share: float  # of pixels above UNUSUAL
    most: float  # the largest of `deviations`
    place: tuple[int, int]  # (x, y) of the most unusual pixel, in pixels of the original image


@torch.no_grad()
def anomaly_map(
    checkpoint: Checkpoint,
    kept: images.Image | None,
    image: LinkedImages,
    noise_level: float | None = None,
) -> AnomalyMap:
    """How unusual each pixel of an image is, compared with the exemplar that the run keeps.

    noise_level: of the model, by default 1. Raises InputError if the run keeps no exemplar.
    """
    if kept is None:
        raise InputError("--unusual: the run keeps no exemplar to compare with; train it again")
    if len(checkpoint.maps) > 1:
        raise InputError("--unusual: not for linked maps; the run keeps the first map only")
    exemplar = checkpoint.to_model(fit_to_model(checkpoint, kept, noise_level))
    pixels, scale = fit_to_model_with_scale(checkpoint, image, noise_level)
    usual = _local_energy(checkpoint, exemplar, noise_level)
    energies = _local_energy(checkpoint, checkpoint.to_model(pixels), noise_level)
    deviations = (energies - usual.mean()) / usual.std()
    row, column = divmod(int(deviations.argmax()), deviations.shape[1])
    share = float((deviations > UNUSUAL).float().mean())
    return AnomalyMap(deviations, share, float(deviations.max()), scale.outward((column, row)))


def _local_energy(checkpoint: Checkpoint, x: Tensor, noise_level: float | None) -> Tensor:
    """Energy of every pixel, averaged over a square around it: (H, W)."""
    energies = checkpoint.density(x, noise_level).energy_map(x)
    side = min(SMOOTHING_SIDE, *(2 * length - 1 for length in energies.shape[1:]))
    padded = F.pad(energies[:, None], (side // 2,) * 4, mode="reflect")
    return F.avg_pool2d(padded, side, stride=1)[0, 0].cpu()


@dataclass(frozen=True)
class Comparison:
    """One of several models, as the source of an image."""

    log_ratio: float  # log likelihood ratio to the most likely model, at most 0
    posterior: float  # probability that this model made the image, for equal priors


def compare_models(
    checkpoints: Sequence[Checkpoint], image: LinkedImages, dtype: torch.dtype
) -> list[Comparison]:
    """A comparison for every model, in their order.

    Raises InputError for models without noise levels or with different channels.
    """
    if any(len(checkpoint.maps) > 1 for checkpoint in checkpoints):
        raise InputError("compare: not for linked maps; name models of one image each")
    if len({checkpoint.config.channel_count for checkpoint in checkpoints}) > 1:
        raise InputError(
            "compare: gray and color models are not comparable; train all with the same channels"
        )
    # All models see the same pixels, otherwise their likelihoods are not comparable.
    stride = math.lcm(*(checkpoint.kind.net.total_stride for checkpoint in checkpoints))
    evidences = [_evidence(checkpoint, image, stride, dtype) for checkpoint in checkpoints]
    best = max(evidences)
    weights = [math.exp(evidence - best) for evidence in evidences]
    return [
        Comparison(evidence - best, weight / sum(weights))
        for evidence, weight in zip(evidences, weights, strict=True)
    ]


def _evidence(
    checkpoint: Checkpoint, image: LinkedImages, stride: int, dtype: torch.dtype
) -> float:
    """log p(I) in gray levels, up to a shared constant, of the center cropped to the stride."""
    config, kind, scales = checkpoint.config, checkpoint.kind, set(checkpoint.normalization.scale)
    if not config.is_texture or len(scales) > 1:
        raise InputError("compare: only for noise-conditional models of textures with one map")
    pixels = to_pixels(image, checkpoint.maps)
    height, width = (side // stride * stride for side in pixels.shape[1:])
    if not min(height, width):
        raise InputError(f"compare: the image must have {stride} pixels a side or more")
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    x = checkpoint.to_model(pixels[:, top : top + height, left : left + width])
    options = SampleOptions(padding_mode=config.padding_mode)
    plan = TilingPlan((height, width))
    denoise = kind.denoiser(options, plan, dtype, checkpoint.phases(x))
    # In gray levels. Below 3 all denoisers leave images as they are.
    levels = noise_levels(16, 600.0, 3.0)
    (scale,) = scales
    errors = denoising_errors(denoise, x, [s / scale for s in levels], draws=2)
    return relative_log_likelihood(errors * scale**2, levels)
