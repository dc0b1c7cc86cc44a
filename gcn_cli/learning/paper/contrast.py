"""The likelihood gradient: observed minus synthesised (equation 8), and the published rules.

    dL/dw = mean over observed df/dw - mean over synthesised df/dw

The rules, as in the authors' released code: the gradient of a layer is divided by the area of
its own map, then scaled down to a largest entry of `cap` where it exceeds that.
"""

import torch
from torch import Tensor, nn

from gcn_cli.model.paper.network import GenerativeConvNet
from gcn_cli.ranks import ALONE, Ranks


def likelihood_gradient(
    model: GenerativeConvNet, observed: Tensor, synthesised: Tensor, ranks: Ranks = ALONE
) -> dict[str, Tensor]:
    """dL/dw for every named parameter; images (N, C, H, W), (M, C, H, W), shared by `ranks`.

    Contrastive divergence is the same formula with images that started at the data.
    """
    names, parameters = zip(*model.named_parameters(), strict=True)
    parts = [ranks.part_of_mean(model.score, images) for images in (observed, synthesised)]
    gap = parts[0] - parts[1]
    gradients = [one.contiguous() for one in torch.autograd.grad(gap, parameters)]
    ranks.sum_(gradients)
    return dict(zip(names, gradients, strict=True))


def normalise(gradients: dict[str, Tensor], map_areas: list[int], cap: float) -> dict[str, Tensor]:
    """Apply the published rules; `map_areas` holds each layer's h * w. A head's area is 1."""
    return {name: _capped(g / _area(name, map_areas), cap) for name, g in gradients.items()}


def _area(name: str, map_areas: list[int]) -> int:
    kind, _, layer = name.partition(".")
    return 1 if kind == "head" else map_areas[int(layer)]


def _capped(gradient: Tensor, cap: float) -> Tensor:
    # One scale for the whole tensor keeps its direction; no host synchronisation.
    return gradient * (cap / gradient.abs().max().clamp_min(cap))


def make_optimiser(
    model: GenerativeConvNet,
    *,
    learning_rate: float,
    bias_rate: float,
    weight_decay: float,
    momentum: float,
) -> torch.optim.SGD:
    """SGD on the filters with weight decay, on the biases at `bias_rate` times the rate."""
    filters: list[nn.Parameter] = [*model.weights, *([] if model.head is None else [model.head])]
    groups = [
        {"params": filters, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": list(model.biases), "lr": learning_rate * bias_rate, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def ascend(
    model: GenerativeConvNet, optimiser: torch.optim.Optimizer, gradients: dict[str, Tensor]
) -> None:
    """One step up the likelihood; optimisers descend, hence the sign."""
    for name, parameter in model.named_parameters():
        parameter.grad = -gradients[name]
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
