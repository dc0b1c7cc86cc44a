"""How good samples of a texture are: every measure a ratio to the exemplar's own.

1 is as near to the exemplar as another part of the exemplar is; no learned weights.
"""

import torch
from torch import Tensor

from gcn_cli.metrics.features import Features
from gcn_cli.metrics.pixels import seams
from gcn_cli.metrics.windows import (
    CopyDetector,
    classifier_score,
    colors,
    crop_side,
    cut_crops,
    mean_ratio,
    moments,
    patches,
    relative_distance,
    spectra,
    structure,
)

SMALLEST = 64  # pixels a side
LARGEST = 512  # of what is looked at of a sample, its middle
MEANINGS = {
    "quality": "the next four, statistics four times (geometric mean); 1: like another part",
    "patches": "distance of patches at several scales (sliced Wasserstein), over its own",
    "statistics": "distance of how features go together, over its own",
    "spectrum": "distance of the power spectrum, over its own",
    "colors": "distance of the colors, over its own",
    "told": "how well a judge that learns it tells windows from real ones; 0.5: not at all",
    "structure": "distance of windows to the nearest real one, over its own; under 1: copied",
    "variety": "how parts of the sample differ, over its own; under 1: too uniform",
    "copied": "share of patches that are copies, beyond its own repeats; 0: none",
    "coherent": "share of neighbors that are neighbors in the exemplar, likewise; 0: none",
    "seam_x": "gradient across the seam of copies side by side, over that inside; 1: no seam",
    "seam_y": "the same of copies on top of one another",
}
"""What every measure is; "its own": the same between parts of the exemplar that do not overlap."""


class TextureMetrics:
    """An exemplar to measure samples by."""

    @torch.no_grad()
    def __init__(self, exemplar: Tensor) -> None:
        """`exemplar` (C, H, W) in 0..255, of 64 pixels a side or more: else ValueError."""
        if min(exemplar.shape[1:]) < SMALLEST:
            raise ValueError(f"pictures under {SMALLEST} pixels a side are too small to measure by")
        self.exemplar = _middle(exemplar[:3].float().cpu(), LARGEST)
        self.features = Features.of(self.exemplar)
        self.seen = self.features.seen(self.exemplar)
        self.originals = CopyDetector(self.exemplar)
        self._own: dict[int, dict[str, list[Tensor]]] = {}  # its crops, by their side

    @torch.no_grad()
    def measure(self, sample: Tensor) -> dict[str, float]:
        """What `MEANINGS` says, of a sample (C, H, W) in 0..255."""
        whole = sample[:3].float().cpu()
        sample = _middle(whole, LARGEST)
        side = crop_side(self.exemplar, sample)
        if min(sample.shape[1:]) < SMALLEST:
            raise ValueError(f"samples under {SMALLEST} pixels a side are too small to measure")
        if side not in self._own:
            self._own[side] = self._described(self.exemplar, side)
        real, made = self._own[side], self._described(sample, side)
        apart = {
            name: relative_distance(own, made[name], evened=name == "statistics")
            for name, own in real.items()
        }
        seen = self.features.seen(sample)
        four = {name: far for name, (far, _) in apart.items()}
        # A ladder begins with the right spectrum, so that the other three tell little of learning.
        weighed = [*four.values(), *[four["statistics"]] * 3]
        copied, coherent = self.originals.copying(sample)
        across, down = seams(whole)
        return {
            "quality": mean_ratio(weighed),
            **four,
            "told": classifier_score(self.seen, seen),
            "structure": structure(self.seen, seen),
            "variety": apart["statistics"][1],
            "copied": copied,
            "coherent": coherent,
            "seam_x": across,
            "seam_y": down,
        }

    def _described(self, picture: Tensor, side: int) -> dict[str, list[Tensor]]:
        """The four descriptions of a picture's crops."""
        tiles = cut_crops(picture, side)
        return {
            "patches": patches(tiles),
            "statistics": moments(self.features(tiles)),
            "spectrum": spectra(tiles),
            "colors": colors(tiles),
        }


def _middle(picture: Tensor, side: int) -> Tensor:
    """What lies in the middle of a picture (C, H, W), so many pixels a side at the most."""
    top, left = (max(0, (length - side) // 2) for length in picture.shape[1:])
    return picture[:, top : top + side, left : left + side]
