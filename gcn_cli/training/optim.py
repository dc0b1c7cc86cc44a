"""Saving learners: their state as tensors by dotted names.

Muon (Jordan et al. 2024): momentum whose step is the nearest matrix with equal singular values.

A filter bank (filters, channels, k, k) is a matrix from patches to responses. Adam moves it along
the few directions that gradients agree on; orthogonalized steps move all directions alike. On
ladders it reaches the loss of Adam in a third of the iterations or fewer.

How a ladder moves: Muon steps its filters, Adam the rest; a running average of both follows.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.noise_conditional import NoiseConditionalNet


def substate(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state whose names start with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's tensors by parameter number and name, as "3.momentum_buffer"."""
    return {
        f"{number}.{name}": value
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` returned."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        number, _, name = key.partition(".")
        entries.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


# Newton-Schulz iteration that pulls singular values into about 0.7..1.2 (coefficients by Jordan).
_CUBIC, _QUINTIC, _LINEAR = -4.7750, 2.0315, 3.4445
_ROUNDS = 5
# Momentum of filters that no image moves any more fades into subnormal numbers, its squares sooner:
# processors are slow with them. Less than this is nothing.
_NOTHING = 1e-20


def orthogonalize(matrix: Tensor) -> Tensor:
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


def orthogonalize_each(*matrices: Tensor) -> list[Tensor]:
    """`orthogonalize` of several."""
    return [orthogonalize(matrix) for matrix in matrices]


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum for filter banks; other parameters want Adam."""

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
        self._steps = GraphedFunction(orthogonalize_each)

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


FILTER_DECAY = 0.01  # keeps filters from growing until a step overshoots
OUTLIER = 3.0  # a gradient this many times longer than usual is cut down to that
USUAL_MEMORY = 0.98  # of the mean length of gradients


class StageOptimizer:
    """The optimizers of a net."""

    def __init__(self, net: NoiseConditionalNet, filter_rate: float, learning_rate: float) -> None:
        """The learning rates at their highest: of Muon, of Adam."""
        self.net = net
        self.rates = {"filters": filter_rate, "others": learning_rate}
        others = [*net.biases, *net.levels, *net.readouts]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "filters": Muon(net.weights, filter_rate, weight_decay=FILTER_DECAY),
            "others": torch.optim.AdamW(
                others, learning_rate, betas=(0.9, 0.99), weight_decay=0.01
            ),
        }
        # Of gradients; 0 before the first.
        self.usual_length = torch.zeros((), device=net.biases[0].device)

    def step(self, gradients: dict[str, Tensor], share: float) -> None:
        """One step at a share of the learning rates; gradients are by parameter name."""
        squares = torch.stack([g.square().sum() for g in gradients.values()])
        length = squares.sum().sqrt().float()
        scale = self._shortened(length) / length.clamp_min(1e-30)
        for name, parameter in self.net.named_parameters():
            parameter.grad = gradients[name] * scale
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _shortened(self, length: Tensor) -> Tensor:
        """A gradient's length, cut down where it is an outlier; keeps the mean of such lengths."""
        usual = torch.where(self.usual_length > 0, self.usual_length, length)
        shortened = torch.minimum(length, OUTLIER * usual)
        self.usual_length.copy_(usual.lerp(shortened, 1 - USUAL_MEMORY))
        return shortened

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped, but for the net."""
        kept = {"usual_length": self.usual_length}
        for name, optimizer in self.optimizers.items():
            own = optimizer_state(optimizer)
            kept |= {f"{name}.{key}": tensor for key, tensor in own.items()}
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        for name, optimizer in self.optimizers.items():
            load_optimizer_state(optimizer, substate(state, f"{name}."))
        self.usual_length.copy_(state["usual_length"])


def update_average(average: nn.Module, net: nn.Module, memory: float) -> None:
    """Move a running average towards a net: `memory`, 0 to 1, of it stays.

    It may have parameters that the net has not.
    """
    own, averages = dict(net.named_parameters()), dict(average.named_parameters())
    newest: list[Tensor] = list(own.values())
    averaged: list[Tensor] = [averages[name] for name in own]
    torch._foreach_lerp_(averaged, newest, 1 - memory)
