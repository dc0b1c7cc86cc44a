"""Speed of training and sampling on this machine, and the share of its peak that is reached.

    python examples/benchmark.py [--json | --markdown] [--only PART,...] [--threads N] [--repeats N]

Every ratio compares two functions timed alternately in this run (A B A B ...): the median of the
pairs, with the smallest and the largest. Parts: basis, denoising_step, langevin (beside torchebm),
area, iterations (training iterations of each preset), kernels (those that take most of the time of
a sample and of iterations), neighbor (trainings beside another process).
Takes under 5 minutes on two CPU cores; uses a GPU if there is one.
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from gcn_cli.config import DEFAULT_LAYERS, PUBLISHED_LAYERS, Config, NoiseConditionalConfig
from gcn_cli.kinds import make_trainer
from gcn_cli.models.backprop import pack
from gcn_cli.models.cascade import Cascade, make_denoiser
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import fast_basis
from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.energy import autograd_gradient, energy, energy_gradient
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.presets import build_config
from gcn_cli.runtime import choose_device, choose_precision, set_threads
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.langevin import run_chain
from gcn_cli.samplers.rng import ImageNoise
from gcn_cli.training.loop import Trainer
from gcn_cli.training.losses import denoising_loss

Work = Callable[[], object]

ROOT = Path(__file__).parents[1]
TEXTURE = ROOT / "examples" / "textures" / "gravel.png"
KERNELS = 15  # listed of each kind of work
ITERATIONS = {"cuda": 40, "mps": 10, "cpu": 4}  # timed of each phase
PAPER = {"preset": "paper-texture", "chains": 16, "layerwise": False}
# Settings and the side of the image in pixels.
TRAININGS: dict[str, tuple[dict[str, Any], int]] = {
    "default": ({}, 256),
    "quick": ({"preset": "quick"}, 256),
    "512": ({"stages": 2}, 512),
    "best": ({"preset": "best", "stages": 2}, 512),
    "object": ({"preset": "object"}, 64),
    "paper-texture, 16 chains": (PAPER, 224),
}


def seconds(work: Work, device: torch.device) -> float:
    """Wall-clock seconds of one call, synchronized with the device before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def in_turn(works: Sequence[Work], repeats: int, device: torch.device) -> list[list[float]]:
    """Seconds of every call, one list for each function; called alternately after a warm-up."""
    for work in works:
        work()
    rounds = [[seconds(work, device) for work in works] for _ in range(repeats)]
    return [list(column) for column in zip(*rounds, strict=True)]


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """slow / fast, pair by pair."""
    pairs = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def fastest_product(dtype: torch.dtype, device: torch.device) -> tuple[Work, float]:
    """The matrix product with the highest rate among a few sizes, and its GFLOP."""
    candidates: list[tuple[float, Work, float]] = []
    for side in (1024, 2048, 3072) if device.type != "cuda" else (4096, 8192):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        product: Work = partial(torch.matmul, a, b)
        work = 2 * float(side) ** 3 / 1e9
        (times,) = in_turn([product], 3, device)
        candidates.append((work / min(times), product, work))
    _, product, work = max(candidates, key=lambda candidate: candidate[0])
    return product, work


def published_net(device: torch.device) -> GenerativeConvNet:
    """The published texture network, with random filters of a typical size."""
    model = GenerativeConvNet(PUBLISHED_LAYERS)
    model.initialize(0.01, torch.Generator().manual_seed(0))
    return model.to(device)


def operations(model: GenerativeConvNet, images: Tensor) -> float:
    """GFLOP of one evaluation of B, forward and backward pass; a multiply-add counts as two."""
    sizes = model.map_sizes(images.shape[-2], images.shape[-1])
    each = [w.numel() * h * w_ for w, (h, w_) in zip(model.weights, sizes, strict=True)]
    total: float = 2 * 2 * len(images) * sum(each) / 1e9
    return total


def basis_figures(device: torch.device, repeats: int) -> dict[str, Any]:
    """B of the published net, 8 images of 224x224 (16 on a GPU): ours against autograd."""
    model = published_net(device)
    count = 16 if device.type == "cuda" else 8
    images = 40 * torch.randn(count, 3, 224, 224, device=device)
    plain = autograd_gradient(model.score)
    work = operations(model, images)
    figures: dict[str, Any] = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        fast = GraphedFunction(fast_basis(model, dtype))
        product, product_work = fastest_product(dtype, device)
        slow_times, fast_times, product_times = in_turn(
            [partial(plain, images), partial(fast, images), product], repeats, device
        )
        rates = [work / taken for taken in fast_times]
        peaks = [product_work / taken for taken in product_times]
        exact = model.basis(images[:1]).detach()
        figures[name] = {
            "speedup": ratio(slow_times, fast_times),
            "gflops": statistics.median(rates),
            "matrix_product_gflops": statistics.median(peaks),
            "share_of_matrix_product": ratio(rates, peaks),
            "relative_error": float((fast(images[:1]) - exact).norm() / exact.norm()),
        }
    return figures


def noise_conditional_net(device: torch.device) -> NoiseConditionalNet:
    """The default network, untrained."""
    rectifier = SmoothReLU(NoiseConditionalConfig().gate_width)
    net = NoiseConditionalNet(DEFAULT_LAYERS, rectifier=rectifier, padding_mode=PaddingMode.REFLECT)
    net.initialize(torch.Generator().manual_seed(0))
    return net.to(device)


def plain_denoising_step(
    net: NoiseConditionalNet, clean: Tensor, noise: Tensor, level: Tensor
) -> None:
    """The loss and its gradient by double backward of autograd, contiguous float32."""
    deviation = level[:, None, None, None]
    sigma = (deviation.square() + 1).sqrt()
    noisy = clean + deviation * noise
    z = (noisy / sigma).requires_grad_()
    maps, total = F.pixel_unshuffle(z, net.space_to_depth), torch.zeros((), device=clean.device)
    angles = level.log()[:, None] * (torch.arange(8, device=clean.device) * 0.5 + 0.25)
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    for index, layer in enumerate(net.layers):
        before = (layer.size - layer.stride) // 2
        after = layer.size - layer.stride - before
        maps = F.pad(maps, (before, after, before, after), mode="reflect")
        scale, shift = (embedding @ net.modulations[index].T).chunk(2, dim=1)
        response = F.conv2d(maps, net.weights[index], net.biases[index], stride=layer.stride)
        modulated = response * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
        maps = F.softplus(modulated, beta=4)
        total = total + (net.readouts[index] * maps).sum() * net.strides[index]
    (gradient,) = torch.autograd.grad(total, z, create_graph=True)
    mean = net.spectrum.posterior_mean(noisy, level, net.padding_mode)
    error = mean + deviation / sigma * gradient - clean
    loss = (error.square() * (sigma / deviation).square()).mean()
    torch.autograd.grad(loss, list(net.parameters()))


def training_figures(device: torch.device, repeats: int) -> dict[str, Any]:
    """One gradient of the denoising loss, 4 crops of 128x128."""
    net = noise_conditional_net(device)
    clean, noise = (torch.randn(4, 3, 128, 128, device=device) for _ in range(2))
    level = torch.tensor([0.05, 0.4, 3.0, 20.0], device=device)

    def ours(dtype: torch.dtype) -> Work:
        @torch.no_grad()
        def work() -> None:
            denoising_loss(pack(net, dtype), clean, noise, level, margin=12)

        return work

    plain, single, half = in_turn(
        [
            lambda: plain_denoising_step(net, clean, noise, level),
            ours(torch.float32),
            ours(torch.bfloat16),
        ],
        repeats,
        device,
    )
    return {
        "float32_speedup": ratio(plain, single),
        "bf16_speedup": ratio(plain, half),
        "bf16_milliseconds": statistics.median(half) * 1e3,
    }


def langevin_figures(device: torch.device, repeats: int) -> dict[str, Any]:
    """Langevin steps per second on the published net, ours against torchebm, float32."""
    try:
        from torchebm.core import BaseModel
        from torchebm.samplers import LangevinDynamics
    except ImportError:
        return {"skipped": "pip install torchebm to compare"}
    model = published_net(device)

    class Wrapped(BaseModel):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return energy(model, x)

    theirs = LangevinDynamics(model=Wrapped(), step_size=0.045, noise_scale=0.3, device=device)
    start = torch.zeros(4, 3, 224, 224, device=device)
    noise = ImageNoise(0, "chain", range(4), device)
    gradient = energy_gradient(model.sigma, GraphedFunction(fast_basis(model)))
    slow, fast = in_turn(
        [
            lambda: theirs.sample(x=start, n_steps=4),
            lambda: run_chain(start, gradient, steps=4, step_size=0.3, noise=noise),
        ],
        repeats,
        device,
    )
    return {"speedup": ratio(slow, fast), "steps_per_second": 4 / statistics.median(fast)}


def sampler(device: torch.device) -> Callable[[int], Tensor]:
    """Makes a square sample of a side, with 4 evaluations of D of the untrained default network."""
    net, config = noise_conditional_net(device), NoiseConditionalConfig()
    net.padding_mode = PaddingMode.CIRCULAR
    denoise = make_denoiser(Cascade([net]), torch.bfloat16)
    levels = noise_levels(4, config.noise_max, config.noise_min)
    noise = ImageNoise(0, "chain", [0], device)

    def sample(side: int) -> Tensor:
        return anneal(levels[0] * noise((1, 3, side, side)), denoise, levels, noise)

    return sample


def scaling_figures(device: torch.device, repeats: int, largest: int) -> dict[str, Any]:
    """Seconds per megapixel of a sample with 4 evaluations of D, sides of 256 to `largest`.

    Sizes are timed alternately, so that a machine that slows down does so for all of them.
    """
    sample = sampler(device)

    def samples(side: int) -> None:
        """As many samples as cover 1024x1024 pixels, at least one."""
        for _ in range(count_of(side)):
            sample(side)

    def count_of(side: int) -> int:
        return max(1, (1024 // side) ** 2)

    sides = [side for side in (256, 512, 1024, 2048) if side <= largest]
    times = in_turn([partial(samples, side) for side in sides], repeats, device)
    figures = {
        str(side): statistics.median(taken) / count_of(side) / (side / 1024) ** 2
        for side, taken in zip(sides, times, strict=True)
    }
    spread = max(figures.values()) / min(figures.values())
    areas = torch.tensor([(side / 1024) ** 2 for side in sides], dtype=torch.float64)
    measured = torch.tensor([figures[str(side)] for side in sides], dtype=torch.float64) * areas
    # The line a + b area of the smallest relative errors, by least squares.
    columns = torch.stack([torch.ones_like(areas), areas], dim=1) / measured[:, None]
    line = torch.linalg.lstsq(columns, torch.ones_like(measured)[:, None]).solution
    return {
        "seconds_per_megapixel": figures,
        "largest_over_smallest": spread,
        "fixed_seconds": float(line[0]),
        "largest_deviation_from_a_line": float((columns @ line - 1).abs().max()),
    }


def timed(work: Work, repeats: int, device: torch.device) -> float:
    """Mean seconds of a call, after two that are not timed."""

    def calls(count: int) -> None:
        for _ in range(count):
            work()

    calls(2)
    return seconds(partial(calls, repeats), device) / repeats


def counted_operations(trainer: Trainer, iteration: int) -> int:
    """Floating-point operations of products and convolutions in one iteration."""
    graphed = GraphedFunction.__call__
    GraphedFunction.__call__ = lambda self, *inputs: self.function(*inputs)  # type: ignore
    try:
        with FlopCounterMode(display=False) as counter:
            trainer.step(iteration)
    finally:
        GraphedFunction.__call__ = graphed  # type: ignore[method-assign]
    return int(counter.get_total_flops())


def iteration_figures(device: torch.device, repeats: int, small: bool) -> dict[str, Any]:
    """Training iterations by phase: time, share of the matrix product rate; whole trainings."""
    figures: dict[str, Any] = {}
    for name, (settings, usual) in TRAININGS.items():
        if small and name in ("default", "quick", "best"):
            continue  # as "512"
        preset = settings.get("preset")
        config = build_config({k: v for k, v in settings.items() if k != "preset"}, preset=preset)
        config, side = (small_config(config), 64) if small else (config, usual)
        count = 16 if name == "object" else 1
        generator = torch.Generator().manual_seed(0)
        data = [torch.randn(3, side, side, generator=generator) for _ in range(count)]
        dtype = choose_precision("auto", device, smooth_gates=config.smooth_gates)
        product, product_work = fastest_product(dtype, device)
        peak = 1e9 * product_work / timed(product, repeats, device)
        single, counted = (make_trainer(config, data, device, dtype)[1] for _ in range(2))
        whole = 0.0
        for start, end in itertools.pairwise([0, *single.likelihood_starts, single.iterations]):
            if start == end:
                continue
            taken = timed(partial(single.step, end), ITERATIONS[device.type], device)
            work = counted_operations(counted, end)
            whole += (end - start) * taken
            figures[f"{name}, iterations {start + 1} to {end}"] = {
                "milliseconds": 1e3 * taken,
                "gigaoperations": work / 1e9,
                "share_of_matrix_product": work / taken / peak,
            }
        figures[f"{name}, training"] = {"seconds": whole}
    return figures


def kernel_figures(device: torch.device, small: bool) -> dict[str, Any]:
    """Kernels of a large sample, and of training iterations of the default."""
    side = 64 if small else 2048 if device.type == "cuda" else 512
    figures = {f"sample of {side} pixels": timed_kernels(partial(sampler(device), side), device)}
    config = build_config({})
    config = small_config(config) if small else config
    data = [torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(0))]
    dtype = choose_precision("auto", device, smooth_gates=config.smooth_gates)
    trainer = make_trainer(config, data, device, dtype)[1]
    for end in dict.fromkeys([1, trainer.iterations]):
        figures[f"iteration {end}"] = timed_kernels(partial(trainer.step, end), device)
    return figures


def timed_kernels(work: Work, device: torch.device) -> dict[str, Any]:
    """Seconds of a first and a second call; of a third milliseconds of the longest kernels."""
    figures: dict[str, Any] = {}
    for name in ("first_seconds", "second_seconds"):
        figures[name] = seconds(work, device)
    with profile() as profiled:
        seconds(work, device)
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = [(getattr(row, kind) / 1e3, row.count, row.key[:100]) for row in profiled.key_averages()]
    rows = sorted((row for row in rows if row[0] > 0), reverse=True)
    figures["milliseconds"] = sum(row[0] for row in rows)
    figures["count"] = sum(row[1] for row in rows)
    figures["kernels"] = {name: taken for taken, _, name in rows[:KERNELS]}
    return figures


def small_config(config: Config) -> Config:
    """The same kind of training, in a moment."""
    crop = None if config.crop is None else 32
    return replace(config, layers=config.layers[:2], crop=crop, iterations=10, batch_size=2)


def neighbor_figures(repeats: int, small: bool) -> dict[str, Any]:
    """Trainings by the command alone and beside one process that computes, in turn."""
    rates: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for repeat, busy in itertools.product(range(repeats), (False, True)):
            run = str(Path(folder, f"{repeat}-{busy}"))
            words = [str(TEXTURE), "--preset", "quick", "--iterations", "4" if small else "40"]
            with neighbor() if busy else nullcontext():
                done = subprocess.run(
                    [sys.executable, "-m", "gcn_cli", "train", *words, "-o", run, "--json"],
                    check=True, capture_output=True, text=True, cwd=ROOT,
                )  # fmt: skip
            result = json.loads(done.stdout)
            rates[busy].append(result["iterations"] / max(result["training_seconds"], 0.1))
    return {
        "iterations_per_second_alone": statistics.median(rates[False]),
        "beside_a_neighbor": statistics.median(rates[True]),
        "share_kept": ratio(rates[True], rates[False]),
    }


@contextmanager
def neighbor() -> Iterator[None]:
    """Another process that computes all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def show(figures: dict[str, Any], indent: str = "") -> None:
    """Print nested figures, one per line."""
    for name, value in figures.items():
        if isinstance(value, dict) and set(value) == {"median", "min", "max"}:
            print(
                f"{indent}{name}: {value['median']:.2f}  ({value['min']:.2f}..{value['max']:.2f})"
            )
        elif isinstance(value, dict):
            print(f"{indent}{name}:")
            show(value, indent + "  ")
        else:
            print(
                f"{indent}{name}: {value:.4g}"
                if isinstance(value, float)
                else f"{indent}{name}: {value}"
            )


def markdown(figures: dict[str, Any], place: str = "") -> Iterator[str]:
    """Rows of a table: what was measured, and the value; of several runs the median and range."""
    if not place:
        yield from ("| figure | value |", "|---|---|")
    for name, value in figures.items():
        full = f"{place}{name}".replace("_", " ")
        if isinstance(value, dict) and set(value) == {"median", "min", "max"}:
            span = f"{value['min']:.2f} to {value['max']:.2f}"
            yield f"| {full} | {value['median']:.2f} ({span}) |"
        elif isinstance(value, dict):
            yield from markdown(value, f"{full}: ")
        else:
            yield f"| {full} | {f'{value:.3g}' if isinstance(value, float) else value} |"


def main() -> None:
    """Run all benchmarks and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--markdown", action="store_true", help="as a table")
    parser.add_argument("--only", default="", help="parts, separated by commas")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--largest", type=int, default=2048, help="largest side for scaling")
    options = parser.parse_args()
    set_threads(options.threads)  # as the commands do, which also keeps freed memory
    device = choose_device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    repeats = options.repeats
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "basis": lambda: basis_figures(device, repeats),
        "denoising_step": lambda: training_figures(device, repeats),
        "langevin": lambda: langevin_figures(device, repeats),
        "area": lambda: scaling_figures(device, repeats, options.largest),
        "iterations": lambda: iteration_figures(device, repeats, options.small),
        "kernels": lambda: kernel_figures(device, options.small),
        "neighbor": lambda: neighbor_figures(min(3, repeats), options.small),
    }
    figures: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    }
    for name, part in parts.items():
        if not options.only or name in options.only.split(","):
            figures[name] = part()
    if options.json:
        print(json.dumps(figures, indent=1))
    elif options.markdown:
        print("\n".join(markdown(figures)))
    else:
        show(figures)


if __name__ == "__main__":
    main()
