"""One thread and float64 helpers for every test."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
import torch

from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.layers import LayerSpec, PaddingMode

MakeModel = Callable[..., GenerativeConvNet]


def pytest_configure() -> None:
    """One order of sums in every fixture and test, so that results repeat bit for bit."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start
    if hasattr(signal, "SIGHUP"):  # which is ignored under nohup, as commands would ignore it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    """What a test sets is undone for the next one."""
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> MakeModel:
    """A float64 model with filters and biases drawn from a seed."""

    def make(
        *layers: str,
        padding_mode: PaddingMode = PaddingMode.ZEROS,
        channels: int = 3,
        sigma: float = 1.0,
        image_size: tuple[int, int] | None = None,
        scale: float = 0.2,
        seed: int = 0,
    ) -> GenerativeConvNet:
        model = GenerativeConvNet(
            [LayerSpec.parse(text) for text in layers],
            channels=channels,
            padding_mode=padding_mode,
            sigma=sigma,
            image_size=image_size,
        ).double()
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(scale * values)
        return model

    return make


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    """Standard normal float64 images from a seed."""

    def draw(*shape: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw
