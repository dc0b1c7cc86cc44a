"""The files of a sample: which channels of a model go into which file, and the files' names.

Linked maps are a file each. Game engines expect names of their own, and several maps in the
channels of one file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.images.image import UINT16_PER_GRAY_LEVEL, TextureMap
from gcn_cli.images.materials import COLOR_KINDS


@dataclass(frozen=True)
class Channel:
    """A channel of a file: the mean of some channels of a model, or a constant."""

    sources: tuple[int, ...] = ()
    constant: float = 0.0  # its value in 0..255 without sources
    inverted: bool = False  # 255 - x, and x as a file would have it

    def of(self, sample: Tensor, bit_depth: int) -> Tensor:
        """Its values (H, W) in 0..255 from a sample (C, H, W) of the model."""
        if not self.sources:
            return sample.new_full(sample.shape[1:], self.constant)
        values = sample[self.sources[0]]
        if len(self.sources) > 1:
            values = sample[list(self.sources)].mean(dim=0)
        if not self.inverted:
            return values
        steps = UINT16_PER_GRAY_LEVEL if bit_depth == 16 else 1
        return (255 - (values.double() * steps).round() / steps).to(values)


@dataclass(frozen=True)
class MapFile:
    """A file of a sample: how it is written, and what its channels are."""

    texture_map: TextureMap  # its name is the last part of the file's name
    channels: tuple[Channel, ...]
    kinds: tuple[str, ...] = ()  # of the maps that it is made of

    @classmethod
    def of(cls, texture_map: TextureMap, first: int) -> "MapFile":
        """The file of a map alone, whose channels begin at `first`. Data have no color profile."""
        if texture_map.kind and texture_map.kind not in COLOR_KINDS:
            texture_map = replace(texture_map, icc_profile=None)
        sources = range(first, first + texture_map.channels)
        return cls(texture_map, tuple(Channel((k,)) for k in sources), (texture_map.kind,))

    def pixels(self, sample: Tensor) -> Tensor:
        """The pixels (C, H, W) of the file, of a sample of the model."""
        first = self.channels[0].sources[:1]
        if self.channels == tuple(Channel((k + sum(first),)) for k in range(len(self.channels))):
            return sample[sum(first) : sum(first) + len(self.channels)]  # no copy of a large map
        depth = self.texture_map.bit_depth
        return torch.stack([channel.of(sample, depth) for channel in self.channels])


@dataclass(frozen=True)
class Layout:
    """The files of every sample of a model."""

    files: tuple[MapFile, ...]

    @property
    def maps(self) -> list[TextureMap]:
        """How the files are written; the name of each is the last part of its file's name."""
        return [file.texture_map for file in self.files]

    @property
    def names(self) -> list[str]:
        """What the files' names end in, after that of the sample; "" of a single map."""
        return [texture_map.name for texture_map in self.maps]

    @property
    def is_material(self) -> bool:
        """Whether the files are the maps of a material, all of known kinds."""
        return len(self.files) > 1 and all(all(file.kinds) for file in self.files)

    def parts(self, sample: Tensor) -> list[Tensor]:
        """The pixels (C, H, W) of each file, of a sample of the model."""
        return [file.pixels(sample) for file in self.files]


def plain_layout(maps: Sequence[TextureMap]) -> Layout:
    """A file for each map, under its name."""
    firsts = [sum(m.channels for m in maps[:k]) for k in range(len(maps))]
    return Layout(tuple(map(MapFile.of, maps, firsts)))
