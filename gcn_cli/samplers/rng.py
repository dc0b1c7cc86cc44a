"""Named random draws: every image has a generator of its own.

A seed, a stream name and the image's number give the generator, so that an image is the same
picture whatever the batch it is made in, and two uses of randomness never share a stream.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Standard normal noise of a shape whose first axis counts the images."""

    def __call__(self, shape: Sequence[int]) -> Tensor: ...


def named_generator(
    seed: int, stream: str, number: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one stream of one image."""
    digest = hashlib.sha256(f"{seed}/{stream}/{number}".encode()).digest()
    generator = torch.Generator(device=device)
    generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return generator


class ImageNoise:
    """A NoiseSource with a generator per image. Its state can be saved and put back."""

    def __init__(
        self,
        seed: int,
        stream: str,
        numbers: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        """`numbers` names the images: image 7 gets the same noise in every batch."""
        self.device = torch.device(device)
        self.generators = [named_generator(seed, stream, n, self.device) for n in numbers]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Float32 noise of `shape`; shape[0] must be the number of images."""
        if shape[0] != len(self.generators):
            raise ValueError(f"noise for {shape[0]} images from {len(self.generators)} generators")
        noise = torch.empty(tuple(shape), device=self.device)
        for image, generator in zip(noise, self.generators, strict=True):
            image.normal_(generator=generator)
        return noise

    def at(self, temperature: float) -> NoiseSource:
        """The same draws for p(I)^(1 / temperature): longer by its root."""
        if temperature == 1:
            return self
        return lambda shape: self(shape).mul_(math.sqrt(temperature))

    def state(self) -> Tensor:
        """All generator states, uint8 (images, bytes)."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def load_state(self, state: Tensor) -> None:
        """Put back what `state` returned."""
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.clone())  # a view of a stack is refused
