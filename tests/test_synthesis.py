"""What happens to a batch of chains that does not fit into memory."""

import logging

import pytest
import torch
from torch import Tensor

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.images import Normalization
from gcn_cli.kinds import NoiseConditionalKind, build_kind
from gcn_cli.options import SampleOptions
from gcn_cli.synthesis import samples


def on_a_device() -> Checkpoint:
    """A model that is not on the processor."""
    family = build_kind(NoiseConditionalConfig(), (32, 32))
    family.net.to("meta")
    return Checkpoint(family, Normalization((0.0,) * 3, (1.0,) * 3), (32, 32))


def test_out_of_memory_means_smaller_batches_and_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def sample(_a: object, _b: object, numbers: range, *_c: object, bent: object) -> Tensor:
        assert bent is None
        asked.append(list(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError
        return torch.tensor(numbers).float()[:, None, None, None].repeat(1, 3, 2, 2)

    monkeypatch.setattr(NoiseConditionalKind, "sample", sample)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        pictures = list(samples(on_a_device(), SampleOptions(), range(5), torch.float32))
    assert asked == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4]]
    assert [float(picture.mean()) for picture in pictures] == [0, 1, 2, 3, 4]
    assert "out of memory on meta: going on with 2 pictures at a time" in caplog.text


def test_one_picture_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*_: object, bent: object) -> Tensor:
        assert bent is None
        raise torch.OutOfMemoryError

    monkeypatch.setattr(NoiseConditionalKind, "sample", sample)
    with pytest.raises(torch.OutOfMemoryError):
        list(samples(on_a_device(), SampleOptions(), range(5), torch.float32))
