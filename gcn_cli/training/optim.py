"""Optimizers of noise-conditional models, and the state of any optimizer as named tensors.

Muon (Jordan et al. 2024) steps along the momentum with all its singular values made equal. A filter
bank (filters, channels, k, k) is a matrix from patches to responses: Adam moves it along the few
directions that gradients agree on, orthogonalized steps move all directions alike. Muon reaches the
loss of Adam in a third of the iterations or fewer.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


def orthogonalize_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonalize` of each matrix; on a GPU in one batch, which launches fewer kernels."""
    if matrices[0].device.type == "cpu":
        return [orthogonalize(matrix) for matrix in matrices]
    return orthogonalize_batch(matrices)


def orthogonalize_batch(matrices: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonalize` of each matrix, to rounding: their squares X X^T in one padded batch."""
    tall = [matrix.shape[0] > matrix.shape[1] for matrix in matrices]
    wide = [m.T if flip else m for m, flip in zip(matrices, tall, strict=True)]
    norms = torch.stack(torch._foreach_norm(wide)).clamp_min(1e-20)
    wide = list(torch._foreach_div(wide, list(norms.unbind())))
    side = max(len(x) for x in wide)
    square = wide[0].new_zeros(len(wide), side, side)
    for x, padded in zip(wide, square, strict=True):
        padded[: len(x), : len(x)] = x @ x.T
    factor = product = _polynomials(square)
    for _ in range(_ITERATIONS - 1):
        square = square @ (factor @ factor)
        factor = _polynomials(square)
        product = factor @ product
    results = [padded[: len(x), : len(x)] @ x for x, padded in zip(wide, product, strict=True)]
    return [r.T if flip else r for r, flip in zip(results, tall, strict=True)]


def _polynomials(squares: Tensor) -> Tensor:
    """`_polynomial` of each matrix of a batch."""
    factors = torch.baddbmm(squares, squares, squares, beta=_CUBIC, alpha=_QUINTIC)
    factors.diagonal(dim1=1, dim2=2).add_(_LINEAR)
    return factors


Number = float | Tensor
"""A number of the schedule. In a CUDA graph it is a tensor (), so that replays use new ones."""


class Muon:
    """Orthogonalized Nesterov momentum for filter banks; use Adam for other parameters."""

    def __init__(
        self, parameters: Sequence[Tensor], momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        """Decay is decoupled: a step multiplies filters by 1 - rate * `weight_decay`."""
        self.parameters = list(parameters)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.averages = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], rate: Number) -> None:
        """One step from the gradients of the parameters."""
        torch._foreach_lerp_(self.averages, gradients, 1 - self.momentum)
        for average in self.averages:
            torch.hardshrink(average, _NEGLIGIBLE, out=average)
        nesterov = torch._foreach_lerp(gradients, self.averages, self.momentum)
        steps = orthogonalize_all([update.flatten(1) for update in nesterov])
        torch._foreach_mul_(self.parameters, 1 - rate * self.weight_decay)
        for parameter, step in zip(self.parameters, steps, strict=True):
            rows, columns = step.shape
            scale = max(1.0, rows / columns) ** 0.5
            if isinstance(rate, Tensor):
                parameter.addcmul_(step.view_as(parameter), rate, value=-scale)
            else:
                parameter.sub_(step.view_as(parameter), alpha=rate * scale)

    def state(self) -> dict[str, Tensor]:
        """The momentum of each parameter."""
        return {f"{index}.momentum": average for index, average in enumerate(self.averages)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for name, average in self.state().items():
            average.copy_(state[name])


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.

    That class imports the compiler of PyTorch, which takes seconds, and reads the number of steps
    from tensors. Here `scalars` has all numbers that depend on it.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.parameters, self.betas = list(parameters), betas
        self.weight_decay, self.eps = weight_decay, eps
        self.steps = 0  # taken so far
        self.means, self.squares = (
            [torch.zeros_like(p, requires_grad=False) for p in self.parameters] for _ in range(2)
        )

    def scalars(self, rate: float) -> tuple[float, float, float]:
        """Count a step at a learning rate; returns its numbers for `step`."""
        self.steps += 1
        corrections = [1 - beta**self.steps for beta in self.betas]
        return 1 - rate * self.weight_decay, rate / corrections[0], math.sqrt(corrections[1])

    @torch.no_grad()
    def step(self, gradients: list[Tensor], decay: Number, step_size: Number, root: Number) -> None:
        """One step from the gradients of the parameters, with the numbers of `scalars`."""
        torch._foreach_mul_(self.parameters, decay)
        torch._foreach_lerp_(self.means, gradients, 1 - self.betas[0])
        torch._foreach_mul_(self.squares, self.betas[1])
        torch._foreach_addcmul_(self.squares, gradients, gradients, value=1 - self.betas[1])
        scales = torch._foreach_div(torch._foreach_sqrt(self.squares), root)
        torch._foreach_add_(scales, self.eps)
        if isinstance(step_size, Tensor):
            steps = torch._foreach_div(self.means, scales)
            torch._foreach_sub_(self.parameters, torch._foreach_mul(steps, step_size))
        else:
            torch._foreach_addcdiv_(self.parameters, self.means, scales, value=-step_size)

    def state(self) -> dict[str, Tensor]:
        """Moments and number of steps of each parameter."""
        state: dict[str, Tensor] = {}
        for index, (mean, square) in enumerate(zip(self.means, self.squares, strict=True)):
            state |= {f"{index}.exp_avg": mean, f"{index}.exp_avg_sq": square}
            state[f"{index}.step"] = torch.tensor(float(self.steps))
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.steps = int(state["0.step"])


FILTER_DECAY = 0.01  # keeps filters from growing until a step overshoots
OUTLIER = 3.0  # times the usual norm: longer gradients are clipped to it
NORM_MEMORY = 0.98  # of the running mean of gradient norms


class StageOptimizer:
    """Muon for the filters of a net, AdamW for its other parameters, outlier gradients clipped."""

    def __init__(self, net: NoiseConditionalNet, filter_rate: float, learning_rate: float) -> None:
        """The highest learning rates: of Muon, of AdamW."""
        self.net, self.filter_rate, self.learning_rate = net, filter_rate, learning_rate
        named = dict(net.named_parameters())
        kinds = ("biases", "modulations", "readouts")  # in the order of saved states
        self.other_names = [f"{kind}.{k}" for kind in kinds for k in range(len(net.layers))]
        self.filter_names = [f"weights.{k}" for k in range(len(net.layers))]
        if net.phase_weights is not None:
            self.filter_names.append("phase_weights")
        self.filters = Muon([named[n] for n in self.filter_names], weight_decay=FILTER_DECAY)
        self.others = AdamW(
            [named[n] for n in self.other_names], betas=(0.9, 0.99), weight_decay=0.01
        )
        self.usual_norm = torch.zeros((), device=net.biases[0].device)  # 0 before the first step

    def scalars(self, rate: float) -> list[float]:
        """Count a step at `rate` (0 to 1) times the learning rates; its numbers for `step`."""
        return [self.filter_rate * rate, *self.others.scalars(self.learning_rate * rate)]

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor], filter_rate: Number, *scalars: Number) -> None:
        """One step, with the numbers of `scalars`; gradients by parameter name."""
        norm = total_norm(list(gradients.values()))
        scale = self._clip(norm) / norm.clamp_min(1e-30)
        names = self.filter_names + self.other_names
        scaled = list(torch._foreach_mul([gradients[name] for name in names], scale))
        count = len(self.filter_names)
        self.filters.step(scaled[:count], filter_rate)
        self.others.step(scaled[count:], *scalars)

    def _clip(self, norm: Tensor) -> Tensor:
        """A gradient norm, clipped if it is an outlier; updates the running mean."""
        usual = torch.where(self.usual_norm > 0, self.usual_norm, norm)
        clipped = torch.minimum(norm, OUTLIER * usual)
        self.usual_norm.copy_(usual.lerp(clipped, 1 - NORM_MEMORY))
        return clipped

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to resume exactly, without the net's."""
        return {
            "usual_norm": self.usual_norm,
            **with_prefix("filters.", self.filters.state()),
            **with_prefix("others.", self.others.state()),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.filters.load_state(substate(state, "filters."))
        self.others.load_state(substate(state, "others."))
        self.usual_norm.copy_(state["usual_norm"])


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, (); on a GPU by a few kernels for all of them."""
    if gradients[0].device.type == "cuda":
        squares = torch.stack(list(torch._foreach_norm(gradients))).square()
    else:
        squares = torch.stack([gradient.square().sum() for gradient in gradients])
    return squares.sum().sqrt().float()


def update_average(average: nn.Module, net: nn.Module, memory: Number) -> None:
    """Exponential moving average of parameters: average <- memory average + (1 - memory) net."""
    averages: list[Tensor] = list(average.parameters())
    newest: list[Tensor] = list(net.parameters())
    if isinstance(memory, Tensor):
        steps = torch._foreach_mul(torch._foreach_sub(newest, averages), 1 - memory)
        torch._foreach_add_(averages, steps)
    else:
        torch._foreach_lerp_(averages, newest, 1 - memory)
