"""Curves and previews of a training for TensorBoard, an optional extra."""

import warnings
from pathlib import Path

from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.learning.trainer import Metrics

FOLDER = "tensorboard"


class Board:
    """Event files in a run's folder."""

    def __init__(self, run: Path, done: int) -> None:
        """Goes on after iteration `done`; what was written of later ones no longer counts.

        Raises InputError where TensorBoard is not installed.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own use of what others mean to take away
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError(
                    "--tensorboard: needs TensorBoard; pip install 'gcn-cli[tensorboard]'"
                ) from error
            self.writer = SummaryWriter(str(run / FOLDER), purge_step=done + 1)

    def note(self, measures: Metrics) -> None:
        """The measures of an iteration."""
        iteration = int(measures["iteration"])
        for name, value in measures.items():
            if name != "iteration":
                self.writer.add_scalar(name, value, iteration)

    def show(self, picture: Tensor, iteration: int) -> None:
        """A picture (C, H, W) in 0..255."""
        shown = picture[:3] if len(picture) >= 3 else picture[:1]
        narrow = shown.round().clamp(0, 255).byte()
        self.writer.add_image("samples", narrow, iteration)

    def close(self) -> None:
        self.writer.close()
