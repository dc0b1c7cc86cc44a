"""Optimizers of noise-conditional models, and the state of any optimizer as named tensors.

Muon (Jordan et al. 2024) steps along the momentum with all its singular values made equal. A filter
bank (filters, channels, k, k) is a matrix from patches to responses: Adam moves it along the few
directions that gradients agree on, orthogonalized steps move all directions alike. Muon reaches the
loss of Adam in a third of the iterations or fewer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.noise_conditional import NoiseConditionalNet


def substate(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state whose names start with `prefix`, which is removed."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with `prefix` before each name: the inverse of `substate`."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's tensors by parameter index and name, such as "3.momentum_buffer"."""
    return {
        f"{index}.{name}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Restore what `optimizer_state` returned."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


# Newton-Schulz iteration that brings singular values to about 0.7..1.2 (coefficients by Jordan).
_CUBIC, _QUINTIC, _LINEAR = -4.7750, 2.0315, 3.4445
_ITERATIONS = 5
# Momentum below this is set to 0. That of filters without a gradient would fade into subnormal
# numbers, its squares sooner, and CPUs are slow with those.
_NEGLIGIBLE = 1e-20


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximately U V^T of a matrix U S V^T: (rows, columns) -> the same. Zero stays zero.

    Iterates are polynomials of X X^T times X. Only the small square matrix is iterated, and X is
    multiplied once, which takes a third less time than the usual form.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-20)
    square = x @ x.T
    factor = product = _polynomial(square)
    for _ in range(_ITERATIONS - 1):
        square = square @ (factor @ factor)
        factor = _polynomial(square)
        product = factor @ product
    result: Tensor = product @ x
    return result.T if tall else result


def _polynomial(square: Tensor) -> Tensor:
    """The factor by which one iteration multiplies X, for `square` = X X^T."""
    factor = torch.addmm(square, square, square, beta=_CUBIC, alpha=_QUINTIC)
    factor.diagonal().add_(_LINEAR)
    return factor


def orthogonalize_all(*matrices: Tensor) -> list[Tensor]:
    """`orthogonalize` of each matrix."""
    return [orthogonalize(matrix) for matrix in matrices]


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum for filter banks; use Adam for other parameters."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        """Decay is decoupled: a step multiplies filters by 1 - `lr` * `weight_decay`."""
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(parameters), defaults)
        # On a GPU, launching these hundreds of small products would take half of an iteration.
        self._orthogonalize_all = GraphedFunction(orthogonalize_all)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients of the parameters; a closure is not called."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = [self._update(p, group["momentum"]) for p in parameters]
            steps = self._orthogonalize_all(*updates)
            for parameter, step in zip(parameters, steps, strict=True):
                rows, columns = step.shape
                scale = max(1.0, rows / columns) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(step.view_as(parameter), alpha=group["lr"] * scale)

    def _update(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The Nesterov momentum as a matrix (filters, inputs); updates the state."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        torch.hardshrink(average, _NEGLIGIBLE, out=average)
        return gradient.lerp(average, momentum).flatten(1)


FILTER_DECAY = 0.01  # keeps filters from growing until a step overshoots
OUTLIER = 3.0  # times the usual norm: longer gradients are clipped to it
NORM_MEMORY = 0.98  # of the running mean of gradient norms


class StageOptimizer:
    """Muon for the filters of a net, AdamW for its other parameters, outlier gradients clipped."""

    def __init__(self, net: NoiseConditionalNet, filter_rate: float, learning_rate: float) -> None:
        """The highest learning rates: of Muon, of AdamW."""
        self.net = net
        self.rates = {"filters": filter_rate, "others": learning_rate}
        filters = list(net.weights)
        if net.phase_weights is not None:
            filters.append(net.phase_weights)
        others = [*net.biases, *net.modulations, *net.readouts]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "filters": Muon(filters, filter_rate, weight_decay=FILTER_DECAY),
            "others": torch.optim.AdamW(
                others, learning_rate, betas=(0.9, 0.99), weight_decay=0.01
            ),
        }
        self.usual_norm = torch.zeros((), device=net.biases[0].device)  # 0 before the first step

    def step(self, gradients: dict[str, Tensor], rate: float) -> None:
        """One step at `rate` (0 to 1) times the learning rates; gradients by parameter name."""
        squares = torch.stack([g.square().sum() for g in gradients.values()])
        norm = squares.sum().sqrt().float()
        scale = self._clip(norm) / norm.clamp_min(1e-30)
        for name, parameter in self.net.named_parameters():
            parameter.grad = gradients[name] * scale
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _clip(self, norm: Tensor) -> Tensor:
        """A gradient norm, clipped if it is an outlier; updates the running mean."""
        usual = torch.where(self.usual_norm > 0, self.usual_norm, norm)
        clipped = torch.minimum(norm, OUTLIER * usual)
        self.usual_norm.copy_(usual.lerp(clipped, 1 - NORM_MEMORY))
        return clipped

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to resume exactly, without the net's."""
        state = {"usual_norm": self.usual_norm}
        for prefix, optimizer in self.optimizers.items():
            state |= with_prefix(f"{prefix}.", optimizer_state(optimizer))
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        for prefix, optimizer in self.optimizers.items():
            load_optimizer_state(optimizer, substate(state, f"{prefix}."))
        self.usual_norm.copy_(state["usual_norm"])


def update_average(average: nn.Module, net: nn.Module, memory: float) -> None:
    """Exponential moving average of parameters: average <- memory average + (1 - memory) net."""
    averages: list[Tensor] = list(average.parameters())
    newest: list[Tensor] = list(net.parameters())
    torch._foreach_lerp_(averages, newest, 1 - memory)
