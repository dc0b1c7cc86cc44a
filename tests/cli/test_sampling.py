"""What happens to a batch of chains that does not fit into memory."""

import pytest
import torch
from torch import Tensor

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.cli import sampling
from gcn_cli.config import LadderConfig
from gcn_cli.images import PixelScale
from gcn_cli.learning.setup import build_model

WISH = sampling.Wish(5, None, "noise", None, None, True, 0, None, None)


def on_a_device() -> Checkpoint:
    """A model that is not on the processor."""
    config = LadderConfig()
    model = build_model(config, (32, 32), config.layers).to("meta")
    return Checkpoint(config, PixelScale((0.0, 0.0, 0.0), 1.0), model, (32, 32))


def test_out_of_memory_means_smaller_batches_and_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def make(_a: object, _b: object, numbers: range, *_c: object) -> Tensor:
        asked.append(list(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError
        return torch.tensor(numbers).float()[:, None, None, None].expand(-1, 3, 2, 2)

    monkeypatch.setattr(sampling, "_ladder_batch", make)
    pictures = sampling.make_samples(on_a_device(), WISH, torch.float32)
    assert asked == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4]]
    assert [float(picture.mean()) for picture in pictures] == [0, 1, 2, 3, 4]
    assert "out of memory on meta: going on with 2 pictures at a time" in capsys.readouterr().err


def test_one_picture_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(sampling, "_ladder_batch", make)
    with pytest.raises(torch.OutOfMemoryError):
        sampling.make_samples(on_a_device(), WISH, torch.float32)
