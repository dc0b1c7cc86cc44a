"""A training: its configs, images, model and trainer, and how far it has come.

`Session.begin` starts a training, or resumes the one in the run's model file.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from gcn_cli import checkpoint as checkpoint_file
from gcn_cli import images as image_files
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import Config, parse_pattern, to_json
from gcn_cli.detection import find_pattern
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.images.image import NEUTRAL, side_by_side
from gcn_cli.images.materials import is_data
from gcn_cli.kinds import ModelKind, make_trainer
from gcn_cli.models.layers import filter_parameters, responses_per_pixel
from gcn_cli.options import TrainOptions
from gcn_cli.pattern import Pattern, PhaseField
from gcn_cli.runs.folder import MODEL_FILE
from gcn_cli.runs.request import asked_for, check_images
from gcn_cli.runtime import choose_device, choose_precision, free_memory
from gcn_cli.training.data import NormalMap, coarse_share, crop_limit
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup, current_group
from gcn_cli.training.loop import Metrics
from gcn_cli.training_images import TrainingImages

log = logging.getLogger(__name__)

DATA_DEVIATION = 0.5  # of data maps beside colors, in model units; everything else has 1
EXTENSION_SHARE = 0.93  # of the time of an extension is planned for, at the speed so far
MIN_EXTENSION = 20  # iterations of an extension by time
# A lower bound on memory. Activations: response, gate and both in the backward pass, two bytes each
# or more. Parameters: the filter, its gradient, its running average, its momentum, four bytes each.
BYTES_PER_RESPONSE, BYTES_PER_PARAMETER = 8, 16


class Snapshot(NamedTuple):
    """A training after an iteration: the trainer's state and all metrics up to then."""

    iteration: int
    state: dict[str, Tensor]
    history: Sequence[Metrics]


class Session:
    """A model in training on images, and its progress."""

    def __init__(
        self,
        images: TrainingImages,
        requested: Config,
        config: Config,
        device: torch.device,
        dtype: torch.dtype,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`config` is `requested`, resolved by the images and the device."""
        self.images, self.requested = images, requested
        self.device, self.dtype, self.group = device, dtype, group
        self.normalization = Normalization.fit(
            images.images,
            config.mean_color,
            unit_deviation=config.unit_deviation,
            groups=_groups(images),
            known=images.known,
        )
        self._model_images = [self.normalization.to_model(image) for image in images.images]
        # Found before the trainer fills the holes of the images, which would change it.
        self.pattern: Pattern | None = None
        self._phases: list[PhaseField] | None = None
        if config.is_texture:
            found = find_pattern(self._model_images, images.known, parse_pattern(config.pattern))
            if found is not None:
                self.pattern, self._phases = found
                _describe(self.pattern)
        means, scales = self.normalization.mean, self.normalization.scale
        neutral = [(NEUTRAL - m) / scale for m, scale in zip(means, scales, strict=True)]
        self._normals = [
            NormalMap(red, (neutral[red], neutral[red + 1]), y_up)
            for red, y_up in images.normal_maps(config)
        ]
        self._build(config)
        self.asked: dict[str, Any] = {}  # what the model file keeps of the options
        self.iteration = 0
        self.history: list[Metrics] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @classmethod
    def begin(cls, images: TrainingImages, requested: Config, options: TrainOptions) -> Self:
        """A new training, or the one in the folder `options.output`, which keeps its config.

        Raises InputError if that folder contradicts --resume, --extend, the settings or the images.
        """
        run = None if options.output is None else Path(options.output)
        exists = run is not None and not options.overwrite and (run / MODEL_FILE).exists()
        if exists and options.resume == "never":
            raise InputError(f"{run}: holds a model (--resume never); name another run with -o")
        extending = options.extend is not None or options.extend_time is not None
        if not exists and (extending or options.resume == "must"):
            option = "--extend" if extending else "--resume must"
            raise InputError(
                f"{run}: holds no model to resume ({option}); train it first, or see -o"
            )
        saved = checkpoint_file.load(run / MODEL_FILE) if run is not None and exists else None
        device = choose_device(options.device)
        dtype = choose_precision(options.precision, device, smooth_gates=requested.smooth_gates)
        side = min(crop_limit(mask, requested.crop or min(mask.shape)) for mask in images.known)
        coarse = min(map(coarse_share, images.images, images.known))
        channels = len(images.images[0])
        shortest, smallest = min((min(mask.shape), k) for k, mask in enumerate(images.known))
        config, notes = requested.resolve(
            side,
            channels,
            coarse,
            on_gpu=device.type != "cpu",
            shortest_side=shortest,
            smallest=images.titles[smallest],
        )
        if saved is None:
            for note in notes:
                log.info(note)
            _check_memory(config, images, device)
            session = cls(images, requested, config, device, dtype, current_group())
            session.asked = asked_for(options, requested)
            return session
        if to_json(requested) != to_json(saved.requested or saved.config):
            raise InputError(f"{run}: trained anew by another job meanwhile; run the command again")
        check_images(run, saved, images, options)
        session = cls(images, requested, saved.config, device, dtype, current_group())
        session.asked = saved.asked or asked_for(options, requested)
        session.trainer.load_state(saved.trainer_state)
        session.iteration, session.history = saved.iteration, list(saved.history)
        session._seconds_before = saved.seconds
        if extending:
            session._extend(options)
        if not session.complete:
            log.info("%s: resumed after iteration %d", run, session.iteration)
        return session

    def _build(self, config: Config) -> None:
        """Make the model and its trainer, at the start of training."""
        try:
            self._kind, self.trainer = make_trainer(
                config,
                self._model_images,
                self.device,
                self.dtype,
                self.group,
                known=self.images.known,
                pattern=self.pattern,
                phases=self._phases,
                normals=self._normals,
            )
        except ValueError as error:
            raise InputError(f"{error}; see --resize, --set crop and --set layers") from error

    @property
    def kind(self) -> ModelKind:
        """The model, under the trainer's present config: its length may change in training."""
        return self._kind.with_config(self.trainer.config)

    @property
    def complete(self) -> bool:
        return self.iteration >= self.trainer.iterations

    @property
    def seconds(self) -> float:
        """Time spent on this training, before and after it was resumed."""
        return self._seconds_before + time.monotonic() - self._started

    def _extend(self, options: TrainOptions) -> None:
        """Add iterations to a finished training; an interrupted extension is resumed as it is."""
        if not self.complete:
            if self.trainer.was_extended:
                return
            raise InputError(
                f"--extend: {options.output} is not finished, iteration {self.iteration} of "
                f"{self.trainer.iterations}; run the same command without --extend to resume"
            )
        iterations = options.extend
        if iterations is None:
            assert options.extend_time is not None
            seconds_each = max(self._seconds_before / max(1, self.iteration), 1e-9)
            affordable = int(EXTENSION_SHARE * options.extend_time / seconds_each)
            iterations = max(MIN_EXTENSION, affordable)
        self.trainer.extend(iterations)
        log.info("%s: %d more iterations (--extend)", options.output, iterations)

    def snapshot(self) -> Snapshot | None:
        """A copy of the present state; None if it contains values that are not finite."""
        state = self.trainer.state()
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            return None
        copies = {name: tensor.detach().clone() for name, tensor in state.items()}
        return Snapshot(self.iteration, copies, tuple(self.history))

    def restore(self, snapshot: Snapshot, config: Config) -> None:
        """Return to a snapshot, which stays as it is, and train on under another `config`.

        The config may differ from the present one in learning rates and step sizes alone.
        """
        self._build(config)
        self.trainer.load_state({name: t.clone() for name, t in snapshot.state.items()})
        self.iteration, self.history = snapshot.iteration, list(snapshot.history)

    def preview(self) -> Tensor:
        """Up to 16 samples in one image, (C, H, W) in 0..255; linked maps side by side."""
        samples = self.normalization.to_pixels(self.trainer.preview()[:16].cpu())
        maps = self.images.maps
        return image_files.grid(torch.stack([side_by_side(sample, maps) for sample in samples]))

    def checkpoint(self) -> Checkpoint:
        """Everything that the model file holds."""
        kind = self.kind
        return Checkpoint(
            kind=kind,
            normalization=self.normalization,
            image_size=kind.net.fitting(*self.trainer.data.full_size),
            iteration=self.iteration,
            total_iterations=self.trainer.iterations,
            seconds=self.seconds,
            data_digest=self.images.digest,
            history=self.history,
            trainer_state=self.trainer.state(),
            requested=self.requested,
            maps=self.images.maps,
            pattern=self.pattern,
            sources=self.images.sources,
            asked=self.asked,
        )


def _groups(images: TrainingImages) -> list[tuple[str, int, float]]:
    """The channel groups that share one scale: whose they are, their sizes, their deviations.

    Data maps beside colors have a smaller deviation, and count less, or the albedo is learned too
    little.
    """
    linked = len(images.maps) > 1
    beside_colors = linked and not all(is_data(texture_map.kind) for texture_map in images.maps)
    titles = images.titles if linked or len(images.images) == 1 else ("every image",)
    return [
        (title, size, DATA_DEVIATION if beside_colors and is_data(texture_map.kind) else 1.0)
        for title, texture_map in zip(titles, images.maps, strict=False)
        for size in texture_map.groups
    ]


def _describe(pattern: Pattern) -> None:
    log.info(
        "regular pattern: repeats every %s pixels (across, down), %.0f%% of the variance "
        "(--pattern off learns it as an irregular texture)",
        pattern.in_words(),
        100 * float(pattern.share),
    )


def _check_memory(config: Config, images: TrainingImages, device: torch.device) -> None:
    """Raise InputError if a training certainly needs more memory than is free."""
    free = free_memory(device)
    height, width = (config.size or config.crop or side for side in images.images[0].shape[1:])
    count, block = config.batch_size or len(images.images), config.space_to_depth
    responses = count * height * width * responses_per_pixel(config.layers, block)
    parameters = filter_parameters(config.layers, config.channel_count, block)
    needed = BYTES_PER_RESPONSE * responses + BYTES_PER_PARAMETER * parameters
    if free is not None and needed > free:
        raise InputError(
            f"--batch-size {count}, --set layers: need {needed / 2**30:.1f} GiB of memory or more, "
            f"{free / 2**30:.1f} GiB are free on {device}; make them, or --set crop, smaller"
        )
