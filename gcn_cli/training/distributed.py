"""Processes that share one training, as torchrun starts them.

Every process holds the whole state and draws all of its random numbers, so that any of them, or
any other number of them, can go on from what was saved; only the evaluations are shared out. What
they find is added up. So a training is the same for any number of processes, but for rounding.
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
    """This process among those that share a training: number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """Which of so many images this process evaluates."""
        return slice(total * self.rank // self.count, total * (self.rank + 1) // self.count)

    def refuse_fewer(self, option: str, images: int) -> None:
        """Raise InputError where there are fewer images than processes to share them."""
        if images < self.count:
            raise InputError(
                f"{option} {images}: fewer than the {self.count} processes that share them; "
                "raise it, or start fewer"
            )

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors of one type over all processes, in place and in one exchange."""
        if self.count == 1:
            return
        whole = torch.cat([tensor.flatten() for tensor in tensors])
        _added_up(whole)
        done = 0
        for tensor in tensors:
            part = whole[done : done + tensor.numel()]
            tensor.copy_(part.view_as(tensor))
            done += len(part)

    def part_of_mean(self, of: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What this process adds to the mean of `of`, (N, ...) -> (N,), over images (N, ...).

        It evaluates its `share`; the sum over all processes is the mean.
        """
        mine = images[self.share(len(images))]
        if not len(mine):
            return images.new_zeros(())
        return of(mine).mean() * (len(mine) / len(images))

    def gathered(self, part: Tensor, total: int) -> Tensor:
        """All (total, ...) of what each process has its `share` of."""
        if self.count == 1:
            return part
        whole = part.new_zeros(total, *part.shape[1:])
        whole[self.share(total)] = part
        _added_up(whole)
        return whole

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.count == 1:
            return flag
        said = torch.tensor(float(flag), device=_device())
        _added_up(said)
        return bool(said > 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What follows waits until all have come this far; where one failed, none goes on.

        Raises GcnError where it was another.
        """
        failed = True
        try:
            yield
            failed = False
        finally:
            other = self.any(failed)
            if other and not failed:
                raise GcnError("another process of this job failed; its message says why")


SINGLE_PROCESS = ProcessGroup()


def _added_up(tensor: Tensor) -> None:
    """Sum over all processes, in place. Raises LostProcessError where one does not answer."""
    try:
        dist.all_reduce(tensor)
        if tensor.is_cuda:
            torch.cuda.current_stream().synchronize()
    except RuntimeError as error:
        raise LostProcessError("another process of this job was lost") from error


def current_group() -> ProcessGroup:
    """The processes of the process group that this one is in; one where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return SINGLE_PROCESS
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


@contextmanager
def join_group(choose: Callable[[], torch.device]) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, over NCCL on GPUs, else over gloo.

    `choose` says which device this process works on. Without torchrun there is one process.
    """
    found = torchrun_ranks()
    if found is None or found[1] == 1 or dist.is_initialized():
        yield current_group()
        return
    backend = "nccl" if choose().type == "cuda" else "gloo"
    store, rank, count = next(rendezvous("env://"))
    # After a restart the store may still hold where the processes before were listening.
    number = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    attempt = dist.PrefixStore(number, store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=count)
    try:
        yield current_group()
        dist.barrier()  # none leaves while another still talks to it
    finally:
        dist.destroy_process_group()


def _device() -> torch.device:
    """Where numbers that are exchanged lie."""
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
