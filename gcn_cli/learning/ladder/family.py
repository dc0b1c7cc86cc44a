"""A ladder among the families: how it is made, learned, evaluated and sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.config import Config, LadderConfig
from gcn_cli.errors import InputError
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.ladder.learner import (
    REFINED_FULLY,
    REFINED_FULLY_ALIGNED,
    LadderLearner,
    fit_spectrum,
)
from gcn_cli.learning.ladder.octaves import OctavesLearner
from gcn_cli.learning.trainer import Learner
from gcn_cli.model.energy import GenerativeModel
from gcn_cli.model.ladder.denoiser import fast_denoiser
from gcn_cli.model.ladder.level import LadderLevel, level_of
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.rectifier import Rectifier
from gcn_cli.model.pattern import Pattern
from gcn_cli.model.rooms import pieces, room_like
from gcn_cli.model.spec import Lattice, LayerSpec, responses_per_pixel
from gcn_cli.ranks import Ranks
from gcn_cli.sampling.annealed import Denoiser, anneal, evaluations, noise_levels, restarted
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.conditional import Given
from gcn_cli.sampling.langevin import Callback
from gcn_cli.sampling.noise import ImageNoise, named_generator
from gcn_cli.sampling.request import Request, check_positive, refused_size

STEPS = 25  # where the quality of textures hardly rises with evaluations any more
OBJECT_STEPS = 60  # the same of aligned objects, which have to agree from end to end
RESTARTED = (0.5, 3.0)  # levels that chains may go through again: there parts of things settle
STRIPS = 400 * 2**20  # bytes: what is worked on at a time, and the program
MAPS_A_GATE = 2.8  # memory of an evaluation over that of all gates, measured
FREE_BORDER = 64  # pixels that are cut off where a picture is to end freely
DEFAULT_LEVEL = 1.0  # where noise is as strong as the data


@dataclass(frozen=True)
class LadderFamily:
    """One generative ConvNet for every level of noise."""

    config: LadderConfig
    net: LadderNet

    @classmethod
    def build(
        cls, config: LadderConfig, image_size: tuple[int, int], layers: Sequence[LayerSpec]
    ) -> "LadderFamily":
        """With all parameters zero."""
        net = LadderNet(
            layers,
            channels=config.bands,
            depth=config.depth,
            lattice=config.lattice,
            rectifier=Rectifier(config.smoothness, config.exact_gates),
            head_for=image_size if config.head else None,
            octaves=config.octaves or 1,
            coarser_layers=config.octave_layers,
        )
        return cls(config, net)

    def with_config(self, config: Config) -> "LadderFamily":
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
    ) -> Learner:
        """First filters drawn, the spectrum measured, from here on the learner's.

        Chains follow `pattern`, that of the observed pictures, where they have one. Raises
        InputError where there are fewer images than `ranks` to share them.
        """
        ranks.refuse_fewer("--batch-size", observed.batch_size)
        if (self.config.octaves or 1) > 1:
            net, patterned = self.net.to(device), pattern is not None
            where = (device, dtype, ranks)
            return OctavesLearner(self.config, net, observed, *where, patterned=patterned)
        self.net.initialise(named_generator(self.config.seed, "layer", 0))
        if self.config.head:
            turned = [one.flip(-1) for one in observed.pictures] if self.config.flips else []
            self.net.spectrum.fit_aligned([*observed.pictures, *turned])
        else:
            fit_spectrum(self.net, observed)
        return LadderLearner(
            self.config,
            self.net.to(device),
            observed,
            device,
            dtype,
            ranks,
            pattern=pattern,
            refined_fully=REFINED_FULLY_ALIGNED if self.config.head else REFINED_FULLY,
        )

    def density(self, level: float | None, dtype: torch.dtype) -> GenerativeModel:
        """p_s at `level`, by default where noise is as strong as the data."""
        if level is not None:
            check_positive("--level", level)
        return level_of(self.net, DEFAULT_LEVEL if level is None else level, dtype)

    @property
    def stride(self) -> int:
        """What sides of pictures that are evaluated at all levels are multiples of."""
        return self.net.whole_stride

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """Multiples of what the ladder of that level needs."""
        octave = self._octave(level)
        stride = self.net.octaves()[octave].total_stride << octave
        return height // stride * stride, width // stride * stride

    def octaves(self) -> list[dict[str, float | str]]:
        """Every ladder: its resolution, the noise above which it answers, how far it looks.

        Noise and pixels a side are those of full resolution.
        """
        above, scale = [0.0], 1.0
        for handover, contrast in self.net.handed_over():
            above.append(round(handover * scale, 2))
            scale *= 2 / contrast
        return [
            {
                "resolution": "1" if number == 0 else f"1/{1 << number}",
                "above": level,
                "looks_at": max(net.receptive_fields()) << number,
            }
            for number, (level, net) in enumerate(zip(above, self.net.octaves(), strict=True))
        ]

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels that a filter response of each layer looks at, at a level."""
        octave = self._octave(level)
        return [field << octave for field in self.net.octaves()[octave].receptive_fields()]

    def _octave(self, level: float | None) -> int:
        """Which ladder answers at a level, 0 for that of full resolution."""
        return len(self.net.levels_up_to(DEFAULT_LEVEL if level is None else level)) - 1

    def canvas(self, request: Request, trained: tuple[int, int]) -> tuple[int, int]:
        """The size itself on a torus; without one, more, of which the border is cut off after."""
        for given, option in (
            (request.start == "chains", "--start chains"),
            (request.step_size is not None, "--step-size"),
            (not request.noise, "--no-noise"),
            (
                request.level is not None and request.start == "noise",
                "--level without --start PICTURE",
            ),
        ):
            if given:
                raise InputError(f"{option}: means nothing to a ladder model; leave it out")
        if request.steps is not None and request.steps < 1:
            raise InputError(f"--steps {request.steps}: a ladder needs one evaluation at least")
        size = request.size or trained
        if self.config.head and size != trained:
            raise refused_size(trained)
        if self.config.head and request.seamless not in (None, "off"):
            raise InputError(
                f"--seamless {request.seamless}: this model has a head, by place; its pictures end"
            )
        if request.seamless is not None and request.lattice not in (None, Lattice.CIRCULAR):
            raise InputError(f"--lattice {request.lattice}: is no torus; leave --seamless out")
        stride = self.stride
        if self._lattice(request) is not Lattice.CIRCULAR:
            height, width = (-(-side // stride) * stride for side in size)
            return height, width
        height, width = (
            side if whole else -(-(side + FREE_BORDER) // stride) * stride
            for side, whole in zip(size, self.closed(request), strict=True)
        )
        return height, width

    def closed(self, request: Request) -> tuple[bool, bool]:
        """As --seamless says, on a torus."""
        if self._lattice(request) is not Lattice.CIRCULAR:
            return False, False
        named = {"x": (False, True), "y": (True, False), "off": (False, False)}
        return named.get(request.seamless or "both", (True, True))

    def _lattice(self, request: Request) -> Lattice:
        """What lies beyond the border: the picture again, but of models that know places."""
        return request.lattice or (self.config.lattice if self.config.head else Lattice.CIRCULAR)

    def steps(self, request: Request) -> int:
        """Evaluations of D, one a level; every level but the last several times in `rounds`."""
        levels = evaluations(self._way(request))
        return levels if request.rounds is None else (levels - 1) * request.rounds + 1

    def _way(self, request: Request) -> list[float]:
        """The levels of noise that a chain meets, in no more evaluations than asked for."""
        config, highest = self.config, self.config.noise_max
        if request.start != "noise":
            asked = DEFAULT_LEVEL if request.level is None else request.level
            highest = max(asked, config.noise_min)
        usual = OBJECT_STEPS if config.head else STEPS
        count = most = usual if request.steps is None else request.steps
        while True:
            levels = noise_levels(count, highest, config.noise_min)
            way = restarted(levels, RESTARTED, request.restarts)
            if request.steps is None or evaluations(way) <= most:
                return way
            count -= 1

    def block(self, request: Request, side: int) -> tuple[int, int] | None:
        """Whole strides and their margins, on a torus; a head has the places of a whole image."""
        if self.config.head or self._lattice(request) is not Lattice.CIRCULAR:
            return None
        own = -(-side // self.net.total_stride) * self.net.total_stride
        return own, own + 2 * self.net.reach()

    def state_bytes(self, size: tuple[int, int]) -> int:
        """The image, D and the D before; the waves of a colour axis; details and coarser images."""
        numbers = 12 + 7 * bool(self.net.coarser)
        return (numbers * self.config.bands + 4) * size[0] * size[1] + STRIPS

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """Gates of all layers, and maps of the widest on the way."""
        values = responses_per_pixel(self.net.layers, self.net.depth) * dtype.itemsize
        return int(size[0] * size[1] * MAPS_A_GATE * values)

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
        """Annealed Langevin dynamics, from white noise or from a picture with noise put on."""
        levels = self._way(request)
        device = self.net.weights[0].device
        noise = ImageNoise(request.seed, "chain", numbers, device).at(request.temperature)
        shape = (len(numbers), self.config.bands, *canvas.size)
        room = canvas.room or room_like(self.net.weights[0])
        x = room(shape, torch.float32)
        drawn = ImageNoise(request.seed, "start", numbers, device)
        for (part,) in pieces(x):
            part.copy_(drawn(part.shape))
        if given is not None:
            beside = given.known + levels[0] * x
        if start is None:
            x.mul_(LadderLevel(self.net, levels[0]).sigma)
        else:
            x.mul_(levels[0]).add_(start.to(device))
        denoise = self._denoise(request, canvas, dtype)
        if bent is not None:
            denoise = bent(denoise)
        if given is None:
            return anneal(x, denoise, levels, noise, callback)
        x = torch.where(given.anew, x, beside)
        held = given.holding(denoise)
        return anneal(x, held, levels, noise, callback, rounds=request.rounds or 1)

    def _denoise(self, request: Request, canvas: Canvas, dtype: torch.dtype) -> Denoiser:
        return fast_denoiser(
            self.net,
            dtype,
            self._lattice(request),
            canvas.block,
            canvas.room,
            canvas.on_block,
        )

    def denoiser(self, request: Request, canvas: Canvas, dtype: torch.dtype) -> Denoiser:
        """D on the lattice asked for, a level outside of those learned taken for the nearest."""
        if canvas.block is not None and canvas.block % self.net.total_stride:
            raise InputError(f"--tile {canvas.block}: no multiple of {self.net.total_stride}")
        run, config = self._denoise(request, replace(canvas, on_block=None), dtype), self.config
        return lambda x, noise: run(x, min(max(noise, config.noise_min), config.noise_max))
