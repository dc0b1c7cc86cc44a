"""On a CUDA device: CUDA graphs, precision, training and sampling, compared with the CPU."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.config import DEFAULT_LAYERS, PUBLISHED_LAYERS, NoiseConditionalConfig
from gcn_cli.kinds import make_trainer
from gcn_cli.models.cascade import Cascade, make_denoiser
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import fast_basis
from gcn_cli.models.cuda_graph import GraphedFunction, SideStream
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.runtime import choose_device
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.langevin import run_chain
from gcn_cli.samplers.rng import ImageNoise
from gcn_cli.training.loop import Trainer
from gcn_cli.training.trainer import CascadeTrainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def gpu() -> torch.device:
    return choose_device("cuda")


def error(result: Tensor, exact: Tensor) -> float:
    return float((result.cpu() - exact).norm() / exact.norm())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_denoising_by_a_cuda_graph_is_that_of_the_cpu(
    gpu: torch.device, dtype: torch.dtype, bound: float, images: Callable[..., Tensor]
) -> None:
    net = NoiseConditionalNet(DEFAULT_LAYERS, rectifier=SmoothReLU(0.5))
    net.initialize(torch.Generator().manual_seed(0))
    exact = make_denoiser(Cascade([net]))
    ours = make_denoiser(Cascade([copy.deepcopy(net).to(gpu)]), dtype)
    for seed, noise in enumerate((5.0, 0.5, 0.1)):
        x = images(3, 3, 64, 96, seed=seed).float()
        assert error(ours(x.to(gpu), noise), exact(x, noise)) < bound


def test_circular_images_of_a_cuda_graph_may_have_any_size(
    gpu: torch.device, images: Callable[..., Tensor]
) -> None:
    """Sides that are no multiple of the stride: the margin is gathered before the network."""
    net = NoiseConditionalNet(DEFAULT_LAYERS, rectifier=SmoothReLU(0.5))
    net.initialize(torch.Generator().manual_seed(0))
    exact = make_denoiser(Cascade([net]), padding_mode=PaddingMode.CIRCULAR)
    ours = make_denoiser(Cascade([copy.deepcopy(net).to(gpu)]), padding_mode=PaddingMode.CIRCULAR)
    x = images(2, 3, 71, 53).float()
    assert error(ours(x.to(gpu), 0.5), exact(x, 0.5)) < 1e-5


def test_a_chain_by_a_cuda_graph_is_the_chain_and_repeats(gpu: torch.device) -> None:
    model = GenerativeConvNet(PUBLISHED_LAYERS)
    model.initialize(0.01, torch.Generator().manual_seed(0))
    plain = fast_basis(model.to(gpu))

    def chain(basis: Callable[[Tensor], Tensor]) -> Tensor:
        noise = ImageNoise(0, "chain", range(4), gpu)
        start = torch.zeros(4, 3, 64, 64, device=gpu)
        return run_chain(start, lambda x: x - basis(x), steps=10, step_size=0.3, noise=noise)

    assert torch.equal(chain(plain), chain(GraphedFunction(plain)))
    assert torch.equal(chain(GraphedFunction(plain)), chain(GraphedFunction(plain)))


def test_training_losses_are_those_of_the_cpu(
    gpu: torch.device, images: Callable[..., Tensor]
) -> None:
    """Losses of the first iterations differ by the noise alone; the last have likelihood too."""
    config = NoiseConditionalConfig(iterations=24, crop=64, likelihood_share=0.5)
    losses = []
    for device in (torch.device("cpu"), gpu):
        _, trainer = make_trainer(config, [images(3, 128, 128).float()], device, torch.float32)
        rows = [trainer.metrics(k, trainer.step(k).tolist()) for k in range(1, 25)]
        assert rows[-1]["likelihood"] > 0
        losses.append(sum(row["loss"] for row in rows) / len(rows))
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.parametrize("stages", [1, 2])
def test_a_training_repeats_and_resumes_bit_for_bit(
    gpu: torch.device, stages: int, images: Callable[..., Tensor]
) -> None:
    config = NoiseConditionalConfig(iterations=12, crop=64, likelihood_share=0.5, stages=stages)

    def trainer() -> Trainer:
        return make_trainer(config, [images(3, 256, 256).float()], gpu, torch.bfloat16)[1]

    first, second, resumed = trainer(), trainer(), trainer()
    for iteration in range(1, 13):
        first.step(iteration)
        second.step(iteration)
        if iteration == 9:
            state = {name: tensor.clone() for name, tensor in second.state().items()}
    resumed.load_state(state)
    for iteration in range(10, 13):
        resumed.step(iteration)
    for name, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[name]), name
        assert torch.equal(tensor, resumed.state()[name]), name


def test_a_run_has_a_row_an_iteration_and_goes_on_from_a_cpu(
    gpu: torch.device, images: Callable[..., Tensor], tmp_path: Path
) -> None:
    """Figures are read from the GPU in groups, that end where something is saved."""
    options: dict[str, Any] = {
        "output": tmp_path / "run", "crop": 32, "layers": "8@5,8@3/2", "preview_every": 7,
        "likelihood_share": 0.5,
    }  # fmt: skip
    image = 127 + 40 * images(3, 64, 64).float()
    stop = iter([False] * 9 + [True])
    gcn.train(image, iterations=40, device="cpu", should_stop=lambda: next(stop), **options)
    model = gcn.train(image, iterations=40, device=str(gpu), **options)
    assert [row["iteration"] for row in model.history] == list(range(1, 41))
    previews = sorted(path.stem for path in (tmp_path / "run" / "previews").iterdir())
    assert previews == [f"{k:06d}" for k in (7, 14, 21, 28, 35, 40)]


def test_stages_side_by_side_are_those_in_turn(
    gpu: torch.device, images: Callable[..., Tensor]
) -> None:
    """Also where both start with likelihood, of layers whose products need a work space."""
    config = NoiseConditionalConfig(iterations=30, crop=96, likelihood_share=0.5, stages=2)
    states = []
    for parallel in (True, False):
        trainer = make_trainer(config, [images(3, 320, 320).float()], gpu, torch.bfloat16)[1]
        assert isinstance(trainer, CascadeTrainer)
        if not parallel:
            trainer._sides = [SideStream(torch.device("cpu")) for _ in trainer.stages]
        for iteration in range(1, 31):
            trainer.step(iteration)
        states.append(trainer.state())
    for name, tensor in states[0].items():
        assert bool(tensor.isfinite().all()), name
        assert torch.equal(tensor, states[1][name]), name


def test_old_graphs_are_not_freed_during_a_capture(gpu: torch.device) -> None:
    """Garbage of a preview, as Python finds it in the middle of the next capture."""

    def old_graph() -> None:
        graphed = GraphedFunction(lambda x: x + 1)
        graphed(torch.ones(2, device=gpu))
        graphed.state = lambda: [graphed._output]  # a cycle

    def allocate(x: Tensor) -> Tensor:
        rows = [[k] for k in range(200_000)]  # enough for a collection
        return x + len(rows)

    for _ in range(3):
        old_graph()
    assert GraphedFunction(allocate)(torch.zeros(2, device=gpu)).tolist() == [200_000] * 2


def test_an_image_is_the_same_in_any_batch(gpu: torch.device) -> None:
    net = NoiseConditionalNet(DEFAULT_LAYERS, rectifier=SmoothReLU(0.5))
    net.initialize(torch.Generator().manual_seed(0))
    denoise = make_denoiser(Cascade([net.to(gpu)]), torch.bfloat16, PaddingMode.CIRCULAR)

    def samples(indices: range) -> Tensor:
        noise = ImageNoise(0, "chain", indices, gpu)
        start = 100 * ImageNoise(0, "start", indices, gpu)((len(indices), 3, 128, 128))
        return anneal(start, denoise, noise_levels(8, 100.0, 0.1), noise)

    assert torch.equal(samples(range(4))[2:3], samples(range(2, 3)))
