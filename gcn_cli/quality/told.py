"""Can a judge tell samples from the exemplar? One that learns it, on windows of both.

Ridge regression on means and deviations of features: learned on one half of exemplar and sample,
asked on the other, for four halves. 0.5 cannot, 1 always; two parts of one texture are told apart
too, a little, since they are two parts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.quality.features import Seen

STEP = 16  # pixels from one window to the next
SIDE = 64
RIDGE = 0.1  # of the mean of the kernel's diagonal


def told(exemplar: Seen, sample: Seen) -> float:
    """The area under the curve, in the mean of four halves; NaN for pictures under 128 pixels."""
    if min(*exemplar.size, *sample.size) < 2 * SIDE:
        return float("nan")
    real, made = _described(exemplar), _described(sample)
    found = []
    for turned in (False, True):
        a, b = (one.transpose(0, 1) if turned else one for one in (real, made))
        count = min(len(a), len(b))
        half = (count - SIDE // STEP + 1) // 2  # so that the halves share no pixel
        if half < 1:
            continue
        first, last = slice(0, half), slice(count - half, count)
        found += [_asked(a, b, one, other) for one, other in ((first, last), (last, first))]
    # Under a half is chance: what set the halves apart in one did the opposite in the other.
    return max(0.5, sum(found) / len(found)) if found else float("nan")


def _described(picture: Seen) -> Tensor:
    """Windows on a grid: (rows, columns, values)."""
    found = []
    for stride, maps in picture.by_stride():
        seen = F.pad(maps, (0, STEP, 0, STEP), mode="replicate")
        size, hop = SIDE // stride, STEP // stride
        mean, square = (F.avg_pool2d(one, size, hop)[0] for one in (seen, seen.square()))
        found += [mean, (square - mean.square()).clamp_min(0).sqrt()]
    rows, columns = ((length - SIDE) // STEP + 1 for length in picture.size)
    return torch.cat([one[:, :rows, :columns] for one in found]).permute(1, 2, 0)


def _asked(real: Tensor, made: Tensor, learned: slice, asked: slice) -> float:
    """The area under the curve on windows of `asked`, of a judge that saw those of `learned`."""
    known = torch.cat([one[learned].flatten(0, 1) for one in (real, made)])
    count = len(real[learned].flatten(0, 1))
    answers = torch.ones(len(known))
    answers[count:] = -1
    middle, scale = known.mean(dim=0), known.std(dim=0)
    scale = scale + 0.1 * scale.mean()
    x = (known - middle) / scale
    kernel = x @ x.T / x.shape[1]
    ridge = RIDGE * kernel.diagonal().mean() * torch.eye(len(kernel))
    weights = torch.linalg.solve(kernel + ridge, answers)
    says = [
        ((one[asked].flatten(0, 1) - middle) / scale) @ x.T / x.shape[1] @ weights
        for one in (real, made)
    ]
    over = (says[0][:, None] > says[1][None]).float() + 0.5 * (says[0][:, None] == says[1][None])
    return float(over.mean())
