"""The denoising loss and its gradient, that of a gradient by `directional_gradient`:

loss = mean over images and levels of |D_s(I + s Z) - I|^2 (s^2 + 1) / s^2.
"""

import threading
from concurrent.futures import Executor, ThreadPoolExecutor

import torch
from torch import Tensor

from gcn_cli.model.double_pass import directional_gradient
from gcn_cli.model.ladder import LadderNet


def one_thread_each() -> ThreadPoolExecutor:
    """As many workers as torch has threads here, each of which runs its operations alone."""
    count = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # the first call in a thread takes over the process's number
        torch.set_num_threads(1)

    workers = ThreadPoolExecutor(count, "image", begin)
    # What a worker sets is taken over by threads that begin later: start all, then put it back.
    together = threading.Barrier(count)
    for begun in [workers.submit(together.wait) for _ in range(count)]:
        begun.result()
    torch.set_num_threads(count)
    return workers


def batch_loss(
    net: LadderNet,
    clean: Tensor,
    drawn: Tensor,
    level: Tensor,
    margin: int,
    dtype: torch.dtype,
    workers: Executor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`denoising_loss` of a batch with maps of `dtype`.

    On a processor every image is a task of its own for one worker: maps of a crop are too small
    for threads to share one operation well, and the result is the same for any number of threads.
    """
    filters = net.filters(dtype)

    def part(images: slice) -> tuple[Tensor, dict[str, Tensor]]:
        return denoising_loss(net, filters, clean[images], drawn[images], level[images], margin)

    if clean.device.type != "cpu":
        return part(slice(None))
    count = len(clean)
    parts = workers.map(part, [slice(k, k + 1) for k in range(count)])
    losses, gradients = zip(*parts, strict=True)
    mean = {name: sum(g[name] for g in gradients) / count for name in gradients[0]}
    return torch.stack(losses).mean(), mean


@torch.no_grad()
def denoising_loss(
    net: LadderNet,
    filters: list[Tensor],
    clean: Tensor,
    drawn: Tensor,
    level: Tensor,
    margin: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss at levels (N,) with standard noise `drawn`, and its parameter gradients.

    `filters` are the net's in the number format of the maps. Residuals within `margin` of the
    border do not count.
    """
    noise = level[:, None, None, None]
    sigma = (noise.square() + 1).sqrt()
    outward = noise / sigma
    noisy = clean + noise * drawn
    up = net.ascend(noisy / sigma, level.log(), filters)
    slope, asked = net.descend(up)
    error = noisy / sigma.square() + outward * slope.to(clean.dtype) - clean
    counted = torch.zeros_like(error)
    inner = slice(margin, -margin or None)
    counted[:, :, inner, inner] = 1 / error[:, :, inner, inner].numel()
    loss = (error.square() / outward.square() * counted).sum()
    # v = dloss / d grad F; brought to one for narrow number formats, and back after.
    along = 2 * error * counted / outward
    largest = along.abs().max().clamp_min(1e-30)
    gradients = directional_gradient(net, up, asked, along / largest)
    return loss, {name: gradient * largest for name, gradient in gradients.items()}
