"""The gate of a ladder's filters: ReLU, exactly or smoothed by a box."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rectifier:
    """ReLU convolved with a uniform density of half width w, in units of that box.

    Smoothed it is quadratic on [-w, w] and the ReLU itself outside, so gates grow from 0 to 1
    over the box and biases near a kink get a gradient. With `exact` the gates are the ReLU's,
    the model is piecewise Gaussian, and the box lends only its second derivative to learning.

    A response a is handed over as a / (2 w) + 1/2, 0 and 1 at the ends of the box, and what comes
    back is ReLU / (2 w): so each of the functions below is one or two passes over the maps.
    """

    width: float
    exact: bool = False

    @property
    def span(self) -> float:
        """The unit, 2 w."""
        return 2 * self.width

    def gate(self, a: Tensor) -> Tensor:
        """First derivative, in 0..1."""
        return (a > 0.5).to(a.dtype) if self.exact else a.clamp(0, 1)

    def value(self, a: Tensor, gate: Tensor, out: Tensor | None = None) -> Tensor:
        """The rectified response, from `gate(a)`: a^2 / 2 in the box, a - 1/2 beyond it."""
        return torch.mul(torch.sub(a, gate, alpha=0.5, out=out), gate, out=out)

    def bend(self, a: Tensor, by: Tensor) -> Tensor:
        """`by` times the second derivative: `by` in the box, 0 outside."""
        # What passes back through a clamp.
        passed: Tensor = torch.ops.aten.hardtanh_backward(by, a, 0.0, 1.0)
        return passed
