"""The published learners, with the authors' settings: likelihood and contrastive divergence."""

import dataclasses
from dataclasses import dataclass
from typing import Self

from gcn_cli.config.checked import Checked
from gcn_cli.errors import InputError
from gcn_cli.model.spec import Lattice, LayerSpec, parse_layers
from gcn_cli.values import value

IMAGENET_MEAN = (123.68, 116.779, 103.939)  # what the authors subtract, RGB 0..255
PUBLISHED_LAYERS = parse_layers("100@15/3+2,64@5+2,30@3+2")


@dataclass(frozen=True)
class PaperConfig(Checked):
    """The published learners, maximum likelihood and contrastive divergence."""

    learner: str = value("mle", "", choices=("mle", "cd"))
    size: int | None = value(224, "", low=1)
    crop: int | None = value(None, "", low=1)
    batch_size: int | None = value(None, "", low=1)
    channels: int | None = value(None, "", low=1)
    mean_color: tuple[float, ...] | None = value(IMAGENET_MEAN, "")
    layers: tuple[LayerSpec, ...] = value(PUBLISHED_LAYERS, "")
    head: bool = value(False, "")
    lattice: Lattice = value(Lattice.ZERO, "", choices=tuple(map(str, Lattice)))
    sigma: float = value(1.0, "deviation of the reference distribution, in grey levels", above=0)
    langevin_steps: int = value(10, "Langevin steps an iteration", low=1)
    step_size: float = value(0.3, "Langevin step size, in grey levels", above=0)
    chains: int | None = value(
        None, "persistent chains; by default 16 as published on a GPU, 1 on a processor", low=1
    )
    growth: bool = value(True, "add layers one at a time, training all below again")
    iterations: int = value(700, "", low=1)
    learning_rate: float = value(5e-4, "", above=0)
    rate_divisor: float = value(2.0, "divides the learning rate at every new stage", above=0)
    bias_rate: float = value(2.0, "biases learn this many times faster", low=0)
    momentum: float = value(0.0, "momentum of the descent", low=0, high=0.999)
    weight_decay: float = value(1e-4, "pull of filters towards 0", low=0)
    gradient_cap: float = value(20.0, "a layer's gradient is scaled to this maximum", above=0)
    init_std: float = value(0.01, "deviation of new filters", above=0)
    seed: int = value(0, "", low=0)

    unit_deviation = False  # pixels stay in grey levels
    steps_lowered = ("learning_rate", "step_size")
    smooth_gates = False
    texture_ladder = False
    stride = 1  # images may have any side
    space_to_depth = 1

    def length_as(self, asked: int | None) -> int:
        """Iterations of a stage, as many as asked for."""
        return asked or self.iterations

    @property
    def first_layers(self) -> tuple[LayerSpec, ...]:
        """Those that a training begins with."""
        return self.layers[:1] if self.growth else self.layers

    def settled(
        self, room: int, channels: int, coarse: float, *, on_gpu: bool
    ) -> tuple[Self, list[str]]:
        """With what pictures and device decide: persistent chains run side by side on a GPU.

        The published mean colour becomes a grey where pictures are grey.
        """
        del room, coarse
        mean = self.mean_color
        if mean == IMAGENET_MEAN and channels == 1:
            mean = (sum(IMAGENET_MEAN) / 3,)
        own = dataclasses.replace(self, channels=channels, mean_color=mean)
        if self.learner != "mle" or self.chains is not None:
            return own, []
        return dataclasses.replace(own, chains=16 if on_gpu else 1), []

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is not None and self.head:
            raise InputError("--crop and --head: a head needs whole aligned images; leave one out")
        if self.learner == "cd" and self.chains is not None:
            raise InputError("--chains: contrastive divergence starts at the data; leave it out")
