"""What there is to say of a model, and of a picture in its eyes, as plain values.

Is D sound at every level of noise, and are chains as far decided there as data is?

The error of the true posterior mean, E|D_s(I + s Z) - I|^2, is the variance of the data at most
and never falls as noise rises: a D of which that is not so is none at that level. And as chains are
to be what noisy data is, D of a chain has to vary as D of noisy data does: where it varies less,
chains are undecided, and things melt; where it varies more, contrast runs away.

Where a picture is unlike what a model learned: its energy, place by place, and the exemplar's.

An energy means something beside another only. So a pixel's, averaged over what lies about it, is
said in deviations of the same over the picture that the model learned from.

Which of several models made a picture: the class posterior of the paper's first section.

p(class | I) is proportional to p_class(I) where all classes are as likely before. Of ladders
log p_class(I) is had from their denoisers, up to a constant that all share (`sampling.evidence`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import to_json
from gcn_cli.errors import InputError
from gcn_cli.inputs import LinkedImages, to_pixels
from gcn_cli.kinds import TilingPlan
from gcn_cli.models.energy import GenerativeModel, energy
from gcn_cli.options import SampleOptions
from gcn_cli.reconstruction import fit_to_model, fitted_to_scale
from gcn_cli.runs.grades import kept_exemplar
from gcn_cli.samplers.annealed import Denoiser, noise_levels
from gcn_cli.samplers.evidence import denoising_errors, log_evidence
from gcn_cli.samplers.rng import named_generator
from gcn_cli.training.loop import Metrics

HISTORY_ROWS = 10


def model_facts(loaded: Checkpoint) -> dict[str, Any]:
    """Config, layers and training history."""
    net, (height, width) = loaded.family.net, loaded.image_size
    layers: list[dict[str, Any]] = [
        {
            "layer": str(spec),
            "receptive_field": field,
            "map": f"{across}x{up}",
            "parameters": net.layer_parameters(number),
        }
        for number, (spec, field, (up, across)) in enumerate(
            zip(net.layers, net.receptive_fields(), net.map_sizes(height, width), strict=True)
        )
    ]
    if net.head_parameters:
        whole = {"layer": "head", "receptive_field": f"{width}x{height}", "map": "1"}
        layers.append({**whole, "parameters": net.head_parameters})
    octaves = loaded.family.octaves()
    widest = max(int(one["looks_at"]) for one in octaves)
    return {
        "config": to_json(loaded.config),
        "maps": [f"{one.name} {one.bands} {one.depth} bits".strip() for one in loaded.maps],
        "mean_color": list(loaded.pixels.mean),
        "periods": dict(zip(("down", "across"), loaded.periods, strict=True)),
        "iteration": loaded.iteration,
        "total_iterations": loaded.total_iterations,
        "seconds": round(loaded.seconds, 1),
        "parameters": sum(one.numel() for one in net.parameters()),
        "octaves": octaves,
        "looks_at": f"{width}x{height}" if net.head_parameters else widest,
        "layers": layers,
        "history": _thinned(loaded.history),
    }


def _thinned(history: list[Metrics]) -> list[Metrics]:
    """Some ten rows from first to last."""
    if len(history) <= HISTORY_ROWS:
        return history
    places = torch.linspace(0, len(history) - 1, HISTORY_ROWS).round().int().tolist()
    return [history[place] for place in places]


@torch.no_grad()
def image_facts(loaded: Checkpoint, density: GenerativeModel, pixels: Tensor) -> dict[str, Any]:
    """Score, energy and the share of open gates by layer, for a picture (C, H, W) in 0..255.

    A smooth gate counts by how far it is open.
    """
    x = loaded.seen(pixels)
    gates = density.activation_pattern(x)
    whole = float(energy(density, x))
    return {
        "score": float(density.score(x)),
        "energy": whole,
        "energy_per_pixel": whole / x.numel(),
        "open_gates": [round(float(gate.float().mean()), 4) for gate in gates],
    }


def filter_sheet(loaded: Checkpoint) -> Tensor:
    """The first layer's filters side by side, each stretched to 0..255 about mid gray."""
    seen = 3 if loaded.maps[0].bands.startswith("RGB") else 1  # colors of the first map
    filters = loaded.family.net.first_filters.cpu()[:, :seen]
    peak = filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    shown = 127.5 + 127.5 * filters / peak
    enlarged = shown.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return images.grid(enlarged)


ALLOWED = 1.1  # times an error at less noise, or the variance: what differs by less is chance
INNER = 8  # an eighth of each side is left out: an exemplar does not go on at its other side


class LevelReport(NamedTuple):
    """All but the noise in variances of the exemplar, of the part that is looked at."""

    noise: float  # in deviations of the data
    error: float  # of D, of the exemplar with that noise
    data_decided: float  # the variance of D of it
    chain_decided: float  # the variance of D of a chain at that level


@torch.no_grad()
def level_reports(
    loaded: Checkpoint, run: Path | None, dtype: torch.dtype, seed: int = 0
) -> list[LevelReport]:
    """What D makes of the exemplar and of a chain, at every level that a sample meets.

    The chain is a sample of the exemplar's size, led by no pattern. Raises InputError for what is
    no ladder of a texture, or where the run keeps no exemplar.
    """
    if not loaded.config.texture_ladder:
        raise InputError("--levels: is for ladders of textures; this model is none")
    kept = kept_exemplar(run)
    if kept is None or len(loaded.maps) > 1:
        raise InputError("--levels: needs the whole exemplar in the run's folder; train it again")
    exemplar = loaded.seen(fit_to_model(loaded, kept))
    size = (exemplar.shape[2], exemplar.shape[3])
    canvas, request = TilingPlan(size), SampleOptions(size=size, seed=seed)
    chain: dict[float, float] = {}

    def noting(denoise: Denoiser) -> Denoiser:
        def noted(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            chain[noise] = float(mean.var())
            return mean

        return noted

    loaded.family.sample(request, [0], None, canvas, dtype, lambda _, __: None, bent=noting)
    denoise = loaded.family.denoiser(request, canvas, dtype)
    inner, facts = _inner_part(exemplar), []
    variance = float(inner.var())
    for number, (noise, decided) in enumerate(chain.items()):
        generator = named_generator(seed, "levels", number)
        drawn = torch.randn(exemplar.shape, generator=generator).to(exemplar)
        mean = _inner_part(denoise(exemplar + noise * drawn, noise))
        error = float((mean - inner).square().mean()) / variance
        facts.append(LevelReport(noise, error, float(mean.var()) / variance, decided / variance))
    return facts


def _inner_part(x: Tensor) -> Tensor:
    up, across = (side // INNER for side in x.shape[2:])
    return x[:, :, up : x.shape[2] - up, across : x.shape[3] - across]


def unsound(facts: Sequence[LevelReport]) -> LevelReport | None:
    """The level at which D errs most beyond what the true one may; None where it is sound."""
    worst, most, bound = None, ALLOWED, 1.0
    for one in sorted(facts, key=lambda one: -one.noise):  # from the highest level down
        if one.error > most * bound:
            worst, most = one, one.error / bound
        bound = min(bound, max(one.error, 1e-3))
    return worst


ABOUT = 17  # pixels a side that are averaged over: a filter's energy lies about its middle
LIMIT = 4.0  # deviations from which a place counts as unusual


class AnomalyMap(NamedTuple):
    """Deviations of the energy from the exemplar's own, (H, W), and what to say of them.

    (H, W) are those of the picture as the model sees it, which may be smaller than the one given.
    """

    deviations: Tensor
    share: float  # of the pixels above LIMIT
    most: float
    place: tuple[int, int]  # (x, y) of the most unusual pixel, in the picture as given


@torch.no_grad()
def anomaly_map(
    loaded: Checkpoint,
    run: Path | None,
    density: GenerativeModel,
    picture: LinkedImages,
    level: float | None = None,
) -> AnomalyMap:
    """Every place of a picture, as the model sees pictures, beside the exemplar of its run.

    `level` is that of the density. Raises InputError where the run keeps no exemplar, or one that
    is only a part of what was learned.
    """
    kept = kept_exemplar(run)
    if kept is None:
        raise InputError("--map: the run keeps no exemplar to compare with; train it again")
    if len(loaded.maps) > 1:
        raise InputError("--map: of linked maps the run keeps the first only; one map is needed")
    own = _energies(density, loaded.seen(fit_to_model(loaded, kept, level)))
    pixels, scale = fitted_to_scale(loaded, picture, level)
    here = _energies(density, loaded.seen(pixels))
    deviations = (here - own.mean()) / own.std()
    most = int(deviations.argmax())
    width = deviations.shape[1]
    share = float((deviations > LIMIT).float().mean())
    place = scale.outward((most % width, most // width))
    return AnomalyMap(deviations, share, float(deviations.max()), place)


def _energies(density: GenerativeModel, x: Tensor) -> Tensor:
    """Energy of every pixel in the mean over its surroundings, (H, W)."""
    found = density.energy_map(x)
    side = min(ABOUT, *(2 * length - 1 for length in found.shape[1:]))
    edges = (side // 2,) * 4
    return F.avg_pool2d(F.pad(found[:, None], edges, mode="reflect"), side, stride=1)[0, 0].cpu()


EVIDENCE_LEVELS, DRAWS = 16, 2
LOWEST_NOISE, HIGHEST_NOISE = (
    3.0,
    600.0,
)  # gray levels: below, all denoisers leave pictures as they are


@dataclass(frozen=True)
class Comparison:
    """What a picture says of one of several models."""

    log_ratio: float  # of the likelihood to that of the most likely model, 0 or less
    posterior: float  # probability that this of them made it, all being as likely before


def compare_models(
    models: Sequence[Checkpoint], picture: LinkedImages, dtype: torch.dtype
) -> list[Comparison]:
    """A verdict for every model, in their order.

    Raises InputError for models without levels of noise, or of other channels.
    """
    if len({model.config.bands for model in models}) > 1:
        raise InputError(
            "--compare: models of gray and of color have no densities of the same thing; train "
            "them alike (--channels)"
        )
    # The same pixels for all, or their densities are not of the same thing.
    stride = math.lcm(*(model.family.stride for model in models))
    told = [_evidence(model, picture, stride, dtype) for model in models]
    best = max(told)
    weights = [math.exp(one - best) for one in told]
    return [
        Comparison(one - best, weight / sum(weights))
        for one, weight in zip(told, weights, strict=True)
    ]


def _evidence(loaded: Checkpoint, picture: LinkedImages, stride: int, dtype: torch.dtype) -> float:
    """log p(I) in pixels, up to what all models share, of whole multiples of `stride` pixels."""
    config, family, scale = loaded.config, loaded.family, set(loaded.pixels.scale)
    if not config.texture_ladder or len(scale) > 1:
        raise InputError("--compare: is for ladders of textures, of one picture each")
    pixels = to_pixels(picture, loaded.maps)
    height, width = (side // stride * stride for side in pixels.shape[1:])
    if not min(height, width):
        raise InputError(f"a picture under {stride} pixels a side is too small to compare")
    # Its middle: what does not fill whole maps is left out at all sides alike.
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    x = loaded.pixels.to_model(pixels[:, top : top + height, left : left + width])[None]
    denoise = family.denoiser(
        SampleOptions(lattice=config.lattice), TilingPlan((height, width)), dtype
    )
    return _in_pixels(denoise, x.to(family.net.weights[0].device), scale.pop())


def _in_pixels(denoise: Denoiser, x: Tensor, scale: float) -> float:
    """The evidence of x in units of `scale` gray levels, as of pixels."""
    levels = noise_levels(EVIDENCE_LEVELS, HIGHEST_NOISE, LOWEST_NOISE)
    error = denoising_errors(denoise, x, [level / scale for level in levels], draws=DRAWS)
    return log_evidence(error * scale**2, levels)
