"""Data-parallel training with torch.distributed.

Every process holds the whole state and draws all random numbers; only the evaluations are divided.
A training is therefore the same, up to rounding, for any number of processes, and a checkpoint can
be resumed with another number.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from gcn_cli.errors import GcnError, InputError, LostProcessError
from gcn_cli.torchrun import torchrun_ranks


@dataclass(frozen=True)
class ProcessGroup:
    """This process, number `rank` of the `world_size` processes that share a training."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and messages."""
        return self.rank == 0

    def shard(self, total: int) -> slice:
        """The images, of `total`, that this process evaluates."""
        return slice(
            total * self.rank // self.world_size, total * (self.rank + 1) // self.world_size
        )

    def require_images(self, option: str, images: int) -> None:
        """Raise InputError if there are fewer images than processes."""
        if images < self.world_size:
            raise InputError(
                f"{option} {images}: fewer than the {self.world_size} processes that share them; "
                "raise it, or start fewer"
            )

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors of one dtype over all processes, in place and in one exchange."""
        if self.world_size == 1:
            return
        total = torch.cat([tensor.flatten() for tensor in tensors])
        _all_reduce_(total)
        parts = torch.split(total, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def partial_mean(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """This process's part of the mean of `function`, (N, ...) -> (N,), over images (N, ...).

        The function is evaluated on this process's shard; the sum over all processes is the mean.
        """
        shard = images[self.shard(len(images))]
        if not len(shard):
            return images.new_zeros(())
        return function(shard).mean() * (len(shard) / len(images))

    def gather(self, part: Tensor, total: int) -> Tensor:
        """The whole tensor (total, ...) from the shard that each process holds."""
        if self.world_size == 1:
            return part
        whole = part.new_zeros(total, *part.shape[1:])
        whole[self.shard(total)] = part
        _all_reduce_(whole)
        return whole

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        if self.world_size == 1:
            return flag
        on_gpu = dist.get_backend() == "nccl"
        flags = torch.tensor(float(flag), device=torch.cuda.current_device() if on_gpu else "cpu")
        _all_reduce_(flags)
        return bool(flags > 0)

    @contextmanager
    def synchronized(self) -> Iterator[None]:
        """Run the body, then wait for all processes.

        Raises GcnError if the body failed in another process.
        """
        failed = True
        try:
            yield
            failed = False
        finally:
            any_failed = self.any_process(failed)
            if any_failed and not failed:
                raise GcnError("another process of this job failed; its message says why")


SINGLE_PROCESS = ProcessGroup()


def _all_reduce_(tensor: Tensor) -> None:
    """Sum over all processes, in place. Raises LostProcessError if one does not answer."""
    try:
        dist.all_reduce(tensor)
        if tensor.is_cuda:
            torch.cuda.current_stream().synchronize()
    except RuntimeError as error:
        raise LostProcessError("another process of this job was lost") from error


def current_group() -> ProcessGroup:
    """The initialized process group; `SINGLE_PROCESS` without one."""
    if not (dist.is_available() and dist.is_initialized()):
        return SINGLE_PROCESS
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


@contextmanager
def join_group(choose: Callable[[], torch.device]) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, over NCCL on GPUs, else over gloo.

    `choose` returns the device of this process. Without torchrun there is one process.
    """
    ranks = torchrun_ranks()
    if ranks is None or ranks[1] == 1 or dist.is_initialized():
        yield current_group()
        return
    backend = "nccl" if choose().type == "cuda" else "gloo"
    store, rank, world_size = next(rendezvous("env://"))
    # After a restart the store may still hold the addresses of the previous processes.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    attempt = dist.PrefixStore(restart, store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=world_size)
    try:
        yield current_group()
        dist.barrier()  # no process leaves while another still sends to it
    finally:
        dist.destroy_process_group()
