"""Random noise by name: every image has its own generator.

Seed, stream name and the index of the image determine the generator. So an image does not depend on
the batch that it is sampled in, and two uses of randomness never share a stream.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoiseSource = Callable[[Sequence[int]], Tensor]
"""Standard normal noise of a given shape (N, ...), for N images."""


def named_generator(
    seed: int, stream: str, index: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of a stream for the image of that index."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    generator = torch.Generator(device=device)
    generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return generator


def restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Restore a saved state, uint8 (bytes).

    Generators of other devices have other states. From such a state follows a new stream, always
    the same.
    """
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        digest = hashlib.sha256(bytes(state.tolist())).digest()
        generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class ImageNoise:
    """A NoiseSource with a generator per image, whose state can be saved and restored."""

    def __init__(
        self, seed: int, stream: str, indices: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        """`indices` of the images: image 7 gets the same noise in every batch."""
        self.device = torch.device(device)
        self.generators = [named_generator(seed, stream, k, self.device) for k in indices]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Float32 noise. Raises ValueError where shape[0] is not the number of images."""
        if shape[0] != len(self.generators):
            raise ValueError(f"noise for {shape[0]} images from {len(self.generators)} generators")
        noise = torch.empty(tuple(shape), device=self.device)
        for image, generator in zip(noise, self.generators, strict=True):
            image.normal_(generator=generator)
        return noise

    def scaled(self, temperature: float) -> NoiseSource:
        """This noise times the root of `temperature`, to sample from p(I)^(1 / temperature)."""
        if temperature == 1:
            return self
        return lambda shape: self(shape).mul_(math.sqrt(temperature))

    def state(self) -> Tensor:
        """All generator states, uint8 (images, bytes)."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def load_state(self, state: Tensor) -> None:
        """Restore what `state` returned."""
        for generator, row in zip(self.generators, state, strict=True):
            restore_generator(generator, row.clone())  # set_state refuses views
