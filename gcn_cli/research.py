"""The building blocks for research in one place: models, energies, Langevin dynamics, learning.

Images are tensors (N, C, H, W) in model units: gray levels minus the mean color for published
models, deviations of the data for noise-conditional ones. `Model.at_level` gives a trained model.
"""

from gcn_cli.models.convnet import GenerativeConvNet, gaussian_piece, published_net
from gcn_cli.models.energy import GenerativeModel, energy, energy_gradient, reconstruct
from gcn_cli.models.layers import parse_layers
from gcn_cli.samplers.langevin import langevin_step, run_chain
from gcn_cli.samplers.rng import ImageNoise
from gcn_cli.training.published import cd_step, likelihood_gradient

__all__ = [
    "GenerativeConvNet",
    "GenerativeModel",
    "ImageNoise",
    "cd_step",
    "energy",
    "energy_gradient",
    "gaussian_piece",
    "langevin_step",
    "likelihood_gradient",
    "parse_layers",
    "published_net",
    "reconstruct",
    "run_chain",
]
