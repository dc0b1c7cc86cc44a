"""Muon (Jordan et al. 2024): momentum whose step is the nearest matrix with equal singular values.

A filter bank (filters, channels, k, k) is a matrix from patches to responses. Adam moves it along
the few directions that gradients agree on; orthogonalised steps move all directions alike. On
ladders it reaches the loss of Adam in a third of the iterations or fewer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gcn_cli.model.capture import Captured

# Newton-Schulz iteration that pulls singular values into about 0.7..1.2 (coefficients by Jordan).
_CUBIC, _QUINTIC, _LINEAR = -4.7750, 2.0315, 3.4445
_ROUNDS = 5
# Momentum of filters that no image moves any more fades into subnormal numbers, its squares sooner:
# processors are slow with them. Less than this is nothing.
_NOTHING = 1e-20


def orthogonalise(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T: (rows, columns) -> the same. Zero stays zero.

    All iterates are polynomials of X X^T times X, so that only the small square matrix is
    iterated and X itself is multiplied once: a third less time than the usual form.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-20)
    square = x @ x.T
    product = _factor(square)
    factor = product
    for _ in range(_ROUNDS - 1):
        square = square @ (factor @ factor)
        factor = _factor(square)
        product = factor @ product
    made: Tensor = product @ x
    return made.T if tall else made


def _factor(square: Tensor) -> Tensor:
    """What one round multiplies X by, a polynomial of X X^T."""
    factor = torch.addmm(square, square, square, beta=_CUBIC, alpha=_QUINTIC)
    factor.diagonal().add_(_LINEAR)
    return factor


def orthogonalise_each(*matrices: Tensor) -> list[Tensor]:
    """`orthogonalise` of several."""
    return [orthogonalise(matrix) for matrix in matrices]


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for filter banks; other parameters want Adam."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        """`weight_decay` times the rate is the share of itself that a filter loses a step."""
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(parameters), defaults)
        # On a GPU starting these hundreds of small products would be half of an iteration.
        self._steps = Captured(orthogonalise_each)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients that the parameters hold."""
        del closure
        for group in self.param_groups:
            moved = [one for one in group["params"] if one.grad is not None]
            if not moved:
                continue
            ahead = [self._ahead(one, group["momentum"]) for one in moved]
            for parameter, step in zip(moved, self._steps(*ahead), strict=True):
                rows, columns = step.shape
                longer = max(1.0, rows / columns) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(step.view_as(parameter), alpha=group["lr"] * longer)

    def _ahead(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The momentum a step further, as a matrix; it follows the gradient."""
        kept, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in kept:
            kept["momentum"] = torch.zeros_like(parameter)
        followed = kept["momentum"].lerp_(gradient, 1 - momentum)
        torch.hardshrink(followed, _NOTHING, out=followed)
        return gradient.lerp(followed, momentum).flatten(1)
