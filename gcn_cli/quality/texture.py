"""How good samples of a texture are: every measure a ratio to the exemplar's own.

1 is as near to the exemplar as another part of the exemplar is; no learned weights.
"""

import math

import torch
from torch import Tensor

from gcn_cli.quality import crops
from gcn_cli.quality.features import Features
from gcn_cli.quality.pictures import seams
from gcn_cli.quality.told import told
from gcn_cli.quality.windows import copying, structure

SMALLEST = 64  # pixels a side
LARGEST = 512  # of what is looked at of a sample, its middle
MEANINGS = {
    "quality": "the next four and twice told, together (geometric mean); 1: like another part",
    "patches": "distance of patches at several scales (sliced Wasserstein), over its own",
    "statistics": "distance of how features go together, over its own",
    "spectrum": "distance of the power spectrum, over its own",
    "colours": "distance of the colours, over its own",
    "told": "how well a judge that learns it tells windows from real ones; 0.5: not at all",
    "structure": "distance of windows to the nearest real one, over its own; under 1: copied",
    "variety": "how parts of the sample differ, over its own; under 1: too uniform",
    "copied": "share of patches that are copies, beyond its own repeats; 0: none",
    "coherent": "share of neighbours that are neighbours in the exemplar, likewise; 0: none",
    "seam_x": "gradient across the seam of copies side by side, over that inside; 1: no seam",
    "seam_y": "the same of copies on top of one another",
}
"""What every measure is; "its own": the same between parts of the exemplar that do not overlap."""


class Yardstick:
    """An exemplar to measure samples by."""

    def __init__(self, exemplar: Tensor) -> None:
        """`exemplar` (C, H, W) in 0..255, of 64 pixels a side or more: else ValueError."""
        if min(exemplar.shape[1:]) < SMALLEST:
            raise ValueError(f"pictures under {SMALLEST} pixels a side are too small to measure by")
        self.exemplar = _middle(exemplar[:3].float().cpu(), LARGEST)
        self.features = Features.of(self.exemplar)

    @torch.no_grad()
    def measure(self, sample: Tensor) -> dict[str, float]:
        """What `MEANINGS` says, of a sample (C, H, W) in 0..255."""
        whole = sample[:3].float().cpu()
        sample = _middle(whole, LARGEST)
        side = crops.crop_side(self.exemplar, sample)
        if min(sample.shape[1:]) < SMALLEST:
            raise ValueError(f"samples under {SMALLEST} pixels a side are too small to measure")
        real, made = (crops.cut(picture, side) for picture in (self.exemplar, sample))
        statistics, variety = crops.relative(
            *(crops.moments(self.features(one)) for one in (real, made)), evened=True
        )
        four = {
            "patches": crops.relative(crops.patches(real), crops.patches(made))[0],
            "statistics": statistics,
            "spectrum": crops.relative(crops.spectra(real), crops.spectra(made))[0],
            "colours": crops.relative(crops.colours(real), crops.colours(made))[0],
        }
        judged = told(self.exemplar, sample, self.features)
        known = [value for value in (*four.values(), 2 * judged) if not math.isnan(value)]
        copied, coherent = copying(self.exemplar, sample)
        across, down = seams(whole)
        return {
            "quality": crops.mean_ratio(known),
            **four,
            "told": judged,
            "structure": structure(self.exemplar, sample, self.features),
            "variety": variety,
            "copied": copied,
            "coherent": coherent,
            "seam_x": across,
            "seam_y": down,
        }


def _middle(picture: Tensor, side: int) -> Tensor:
    """What lies in the middle of a picture (C, H, W), so many pixels a side at the most."""
    top, left = (max(0, (length - side) // 2) for length in picture.shape[1:])
    return picture[:, top : top + side, left : left + side]
