"""The published model among the families: how it is made, learned, evaluated and sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.config import Config, PaperConfig
from gcn_cli.errors import InputError
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.paper.chains import Chains, DataChains, PersistentChains
from gcn_cli.learning.paper.learner import PaperLearner
from gcn_cli.model.energy import energy_gradient
from gcn_cli.model.paper.fast import FastNet
from gcn_cli.model.paper.network import GenerativeConvNet
from gcn_cli.model.pattern import Pattern
from gcn_cli.model.spec import Lattice, LayerSpec, responses_per_pixel
from gcn_cli.ranks import Ranks
from gcn_cli.sampling.annealed import Denoiser
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.conditional import Given
from gcn_cli.sampling.langevin import Callback, run_chain
from gcn_cli.sampling.noise import ImageNoise, named_generator
from gcn_cli.sampling.request import Request, refused_size

STEPS = 100


@dataclass(frozen=True)
class PaperFamily:
    """The generative ConvNet as published."""

    config: PaperConfig
    net: GenerativeConvNet

    @classmethod
    def build(
        cls, config: PaperConfig, image_size: tuple[int, int], layers: Sequence[LayerSpec]
    ) -> "PaperFamily":
        """With all parameters zero."""
        net = GenerativeConvNet(
            layers,
            channels=config.bands,
            lattice=config.lattice,
            sigma=config.sigma,
            head_for=image_size if config.head else None,
        )
        return cls(config, net)

    @property
    def stride(self) -> int:
        """What sides of pictures are multiples of."""
        return self.net.total_stride

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """All of a picture, since what is left over is padded."""
        del level
        return self.net.fitting(height, width)

    def octaves(self) -> list[dict[str, float | str]]:
        """One network, at full resolution."""
        return [{"resolution": "1", "above": 0.0, "looks_at": max(self.receptive_fields())}]

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels that a filter response of each layer looks at."""
        del level
        return self.net.receptive_fields()

    def with_config(self, config: Config) -> "PaperFamily":
        """The same network under another config of its kind."""
        assert isinstance(config, type(self.config))
        return replace(self, config=config)

    def learner(
        self,
        observed: Batches,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks,
        *,
        pattern: Pattern | None,
    ) -> PaperLearner:
        """First filters drawn; the learner adds the layers that are still to come.

        Published chains follow no `pattern`.
        """
        del pattern
        config = self.config
        self.net.initialise(config.init_std, named_generator(config.seed, "layer", 0))
        shape = (config.bands, *observed.image_size)
        chains = _chains(config, observed.batch_size, shape, device, ranks)
        return PaperLearner(config, self.net.to(device), observed, chains, dtype, ranks)

    def density(self, level: float | None, dtype: torch.dtype) -> FastNet:
        """The network itself. Raises InputError for a level."""
        if level is not None:
            raise InputError("--level: this model has one level of noise; leave it out")
        return FastNet.of(self.net, dtype)

    def canvas(self, request: Request, trained: tuple[int, int]) -> tuple[int, int]:
        """The size asked for, which the layers must fit on."""
        for given, option in (
            (request.level is not None, "--level"),
            (request.restarts > 0, "--restarts"),
        ):
            if given:
                raise InputError(f"{option}: this model has one level of noise; leave it out")
        if request.seamless is not None:
            raise InputError("--seamless: is for ladder models; use --lattice circular")
        size = request.size or trained
        if self.config.head and size != trained:
            raise refused_size(trained)
        try:
            self._on(request).map_sizes(*size)
        except ValueError as error:
            raise InputError(f"--size {size[1]}x{size[0]}: {error}") from error
        return size

    def closed(self, request: Request) -> tuple[bool, bool]:
        """On a torus in both directions."""
        whole = self._on(request).lattice is Lattice.CIRCULAR
        return whole, whole

    def steps(self, request: Request) -> int:
        """Langevin steps."""
        return STEPS if request.steps is None else request.steps

    def block(self, request: Request, side: int) -> tuple[int, int] | None:
        """None: chains are made at the size of the exemplar."""
        return None

    def state_bytes(self, size: tuple[int, int]) -> int:
        """The image, its gradient, noise."""
        return 12 * self.config.bands * size[0] * size[1]

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """Gates of all layers, and the maps of one."""
        return int(size[0] * size[1] * responses_per_pixel(self.net.layers) * dtype.itemsize)

    def sample(
        self,
        request: Request,
        numbers: Sequence[int],
        start: Tensor | None,
        canvas: Canvas,
        dtype: torch.dtype,
        callback: Callback,
        given: Given | None = None,
        bent: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Tensor:
        """Langevin chains from the reference distribution, or from `start`."""
        if given is not None:
            raise InputError(
                "a published model forgets its start too slowly to repair pictures; use a ladder, "
                "as 'gcn train' learns by default"
            )
        if bent is not None:
            raise _one_level("--guide, --blend")
        net = self._on(request)
        device = net.weights[0].device
        if start is None:
            shape = (len(numbers), self.config.bands, *canvas.size)
            start = net.sigma * ImageNoise(request.seed, "start", numbers)(shape)
        chain = ImageNoise(request.seed, "chain", numbers, device).at(request.temperature)
        return run_chain(
            start.to(device, copy=True),  # with no steps it comes back, and is made pixels in place
            energy_gradient(net.sigma, FastNet.of(net, dtype).basis),
            steps=self.steps(request),
            step_size=request.step_size or self.config.step_size,
            noise=chain if request.noise else None,
            callback=callback,
        )

    def denoiser(self, request: Request, canvas: Canvas, dtype: torch.dtype) -> Denoiser:
        """None: there is one level."""
        raise _one_level("--blend")

    def _on(self, request: Request) -> GenerativeConvNet:
        """The network on the lattice asked for."""
        return self.net.on(request.lattice or self.config.lattice)


def _one_level(option: str) -> InputError:
    return InputError(f"{option}: a published model has no levels of noise; use a ladder")


def _chains(
    config: PaperConfig,
    batch_size: int,
    shape: tuple[int, int, int],
    device: torch.device,
    ranks: Ranks,
) -> Chains:
    count = batch_size if config.learner == "cd" else config.chains or 1
    images = torch.zeros(count, *shape, device=device)
    noise = ImageNoise(config.seed, "chain", range(count), device)
    if config.learner == "cd":
        ranks.refuse_fewer("--batch-size", count)
        steps, step_size, sigma = config.langevin_steps, config.step_size, config.sigma
        return DataChains(images, noise, steps, step_size, sigma, ranks)
    ranks.refuse_fewer("--chains", count)
    return PersistentChains(images, noise, config.langevin_steps, config.step_size, ranks)
