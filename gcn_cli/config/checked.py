"""What every config has: rules that are checked when it is made, and what no family must have."""

import dataclasses
from typing import Self

from gcn_cli.errors import InputError
from gcn_cli.values import check


class Checked:
    """Checks every field by its rules when a config is made."""

    channels: int | None
    mean_color: tuple[float, ...] | None
    steps_lowered: tuple[str, ...] = ()  # rates and steps that a training which diverges halves
    # What a family has no option for.
    shrink: int | None = None
    flips: bool = False
    rotations: bool = False
    shifts: int = 0

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            check(spec.name, getattr(self, spec.name), spec.metadata)
        if any(not 0 <= level <= 255 for level in self.mean_color or ()):  # NaN is not either
            written = ",".join(f"{level:g}" for level in self.mean_color or ())
            raise InputError(
                f"--mean-color {written}: each value must be in 0..255; "
                "give one a channel, or 'own'"
            )
        given = len(self.mean_color) if self.mean_color is not None else None
        if given is not None and self.channels is not None and given != self.channels:
            raise InputError(
                f"--mean-color has {given} values for {self.channels} channels; "
                "give one a channel, or 'own'"
            )

    @property
    def bands(self) -> int:
        """Channels of the model: colours, until pictures have `settled` it."""
        return 3 if self.channels is None else self.channels

    def slower(self) -> Self:
        """With steps half as long, for a training that diverged."""
        halved = {name: getattr(self, name) / 2 for name in self.steps_lowered}
        return dataclasses.replace(self, **halved)  # type: ignore[type-var]
