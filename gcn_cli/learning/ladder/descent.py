"""How a ladder moves: Muon steps its filters, Adam the rest; a running average of both follows."""

import torch
from torch import Tensor, nn

from gcn_cli.learning.ladder.muon import Muon
from gcn_cli.learning.state import below, load_optimiser_state, optimiser_state
from gcn_cli.model.ladder.net import LadderNet

FILTER_DECAY = 0.01  # keeps filters from growing until a step overshoots
OUTLIER = 3.0  # a gradient this many times longer than usual is cut down to that
USUAL_MEMORY = 0.98  # of the mean length of gradients


class Descent:
    """The optimisers of a net."""

    def __init__(self, net: LadderNet, filter_rate: float, learning_rate: float) -> None:
        """The learning rates at their highest: of Muon, of Adam."""
        self.net = net
        self.rates = {"filters": filter_rate, "others": learning_rate}
        others = [*net.biases, *net.levels, *net.readouts]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
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
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.rates[name] * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def _shortened(self, length: Tensor) -> Tensor:
        """A gradient's length, cut down where it is an outlier; keeps the mean of such lengths."""
        usual = torch.where(self.usual_length > 0, self.usual_length, length)
        shortened = torch.minimum(length, OUTLIER * usual)
        self.usual_length.copy_(usual.lerp(shortened, 1 - USUAL_MEMORY))
        return shortened

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped, but for the net."""
        kept = {"usual_length": self.usual_length}
        for name, optimiser in self.optimisers.items():
            own = optimiser_state(optimiser)
            kept |= {f"{name}.{key}": tensor for key, tensor in own.items()}
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        for name, optimiser in self.optimisers.items():
            load_optimiser_state(optimiser, below(state, f"{name}."))
        self.usual_length.copy_(state["usual_length"])


def follow(average: nn.Module, net: nn.Module, memory: float) -> None:
    """Move a running average towards a net: `memory`, 0 to 1, of it stays.

    It may have parameters that the net has not.
    """
    own, averages = dict(net.named_parameters()), dict(average.named_parameters())
    newest: list[Tensor] = list(own.values())
    averaged: list[Tensor] = [averages[name] for name in own]
    torch._foreach_lerp_(averaged, newest, 1 - memory)
