"""Is D sound at every level of noise, and are chains as far decided there as data is?

The error of the true posterior mean, E|D_s(I + s Z) - I|^2, is the variance of the data at most
and never falls as noise rises: a D of which that is not so is none at that level. And as chains are
to be what noisy data is, D of a chain has to vary as D of noisy data does: where it varies less,
chains are undecided, and things melt; where it varies more, contrast runs away.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.grading import kept_exemplar
from gcn_cli.runs.reconstruction import fitted
from gcn_cli.sampling.annealed import Denoiser
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.noise import named_generator
from gcn_cli.sampling.request import Request

ALLOWED = 1.1  # times an error at less noise, or the variance: what differs by less is chance
INNER = 8  # an eighth of each side is left out: an exemplar does not go on at its other side


class LevelFacts(NamedTuple):
    """All but the noise in variances of the exemplar, of the part that is looked at."""

    noise: float  # in deviations of the data
    error: float  # of D, of the exemplar with that noise
    data_decided: float  # the variance of D of it
    chain_decided: float  # the variance of D of a chain at that level


@torch.no_grad()
def by_level(
    loaded: Checkpoint, run: Path | None, dtype: torch.dtype, seed: int = 0
) -> list[LevelFacts]:
    """What D makes of the exemplar and of a chain, at every level that a sample meets.

    The chain is a sample of the exemplar's size, led by no pattern. Raises InputError for what is
    no ladder of a texture, or where the run keeps no exemplar.
    """
    if not loaded.config.texture_ladder:
        raise InputError("--levels: is for ladders of textures; this model is none")
    kept = kept_exemplar(run)
    if kept is None or len(loaded.maps) > 1:
        raise InputError("--levels: needs the whole exemplar in the run's folder; train it again")
    exemplar = loaded.seen(fitted(loaded, kept))
    size = (exemplar.shape[2], exemplar.shape[3])
    canvas, request = Canvas(size), Request(size=size, seed=seed)
    chain: dict[float, float] = {}

    def noting(denoise: Denoiser) -> Denoiser:
        def noted(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            chain[noise] = float(mean.var())
            return mean

        return noted

    loaded.family.sample(request, [0], None, canvas, dtype, lambda _, __: None, bent=noting)
    denoise = loaded.family.denoiser(request, canvas, dtype)
    inner, facts = _inner(exemplar), []
    variance = float(inner.var())
    for number, (noise, decided) in enumerate(chain.items()):
        generator = named_generator(seed, "levels", number)
        drawn = torch.randn(exemplar.shape, generator=generator).to(exemplar)
        mean = _inner(denoise(exemplar + noise * drawn, noise))
        error = float((mean - inner).square().mean()) / variance
        facts.append(LevelFacts(noise, error, float(mean.var()) / variance, decided / variance))
    return facts


def _inner(x: Tensor) -> Tensor:
    up, across = (side // INNER for side in x.shape[2:])
    return x[:, :, up : x.shape[2] - up, across : x.shape[3] - across]


def unsound(facts: Sequence[LevelFacts]) -> LevelFacts | None:
    """The level at which D errs most beyond what the true one may; None where it is sound."""
    worst, most, bound = None, ALLOWED, 1.0
    for one in sorted(facts, key=lambda one: -one.noise):  # from the highest level down
        if one.error > most * bound:
            worst, most = one, one.error / bound
        bound = min(bound, max(one.error, 1e-3))
    return worst
