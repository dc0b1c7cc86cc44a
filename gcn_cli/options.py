"""Options of training and sampling, shared by the Python API and the command line.

Each option is a dataclass field made by `option`, which holds its default, its help and its rule.
The rules are checked when an object is made; `gcn_cli.cli.options` makes the Click options.
"""

import dataclasses
import numbers
import operator
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, Union, cast, get_args, get_origin

from gcn_cli.config import check_rules
from gcn_cli.errors import InputError
from gcn_cli.models.layers import PaddingMode

MAX_STEPS = 100_000  # evaluations, days of work

Alpha = Literal["auto", "mask", "channel", "drop"]
"""What transparency means: unknown pixels, one more channel, or nothing (placed on white)."""

Resume = Literal["auto", "never", "must"]
"""Whether a run that exists is resumed: if it exists, never, or always (it must exist)."""

Precision = Literal["auto", "float32", "bf16"]

Seamless = Literal["both", "x", "y", "off"]
"""The axes along which an image tiles."""

Tile = int | Literal["auto", "off"]
"""Side of the blocks that an image is computed in; auto: only if memory does not hold it whole."""


def option(
    default: Any,
    text: str,
    *,
    group: str,
    metavar: str | None = None,
    kind: str | None = None,
    flags: tuple[str, ...] | None = None,
    **rule: Any,
) -> Any:
    """A dataclass field that is also an option of a command.

    group: heading in the help, as "Input", "Training", "Sampling", "Output", "Hardware".
    metavar: word for the value in the help; by default it follows from the kind.
    kind: how the text of a value is read: a key of `gcn_cli.cli.options.KINDS`, as "size", "time"
    or "seeds". By default it follows from the type of the field: bool is a flag, Literal a choice,
    int and float a number, tuple[str, ...] an option that may be repeated.
    flags: names on the command line, by default "--" and the name of the field.
    rule: `low`, `above`, `high` or `choices`, as `gcn_cli.config.check_rules` knows them.
    """
    about = {"help": text, "group": group, "metavar": metavar, "kind": kind, "flags": flags}
    return field(default=default, metadata=about | rule)


def argument(default: Any, text: str, **rule: Any) -> Any:
    """A dataclass field that is an argument of the Python API and no option of a command."""
    return field(default=default, metadata={"help": text} | rule)


def flag_of(spec: dataclasses.Field[Any]) -> str:
    """The name of a field on the command line, as "--step-size"."""
    flags = spec.metadata.get("flags")
    return flags[-1].split("/")[0] if flags else "--" + spec.name.replace("_", "-")


def _broken_rule(kind: Any, value: object) -> str | None:
    """What a value must be to be of a type of numbers, flags or words; None if it is."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    allowed: list[str] = []
    for part in parts:
        known = {bool: bool, int: numbers.Integral, float: numbers.Real, type(None): type(None)}
        if get_origin(part) is Literal:
            fits = isinstance(value, str) and value in get_args(part)
            allowed += get_args(part)
        elif part in known:
            fits = isinstance(value, known[part]) and (part is bool or not isinstance(value, bool))
            allowed += {bool: ["True or False"], int: ["a whole number"], float: ["a number"]}.get(
                part, []
            )
        else:
            return None  # images, paths and sizes are checked where they are used
        if fits:
            return None
    return f"one of {', '.join(allowed)}" if len(allowed) > 1 else allowed[0]


class Options:
    """Base of the option classes: checks every field by its rule when an object is made."""

    def with_changes(self, **changes: Any) -> Self:
        """A copy with other values. Raises InputError for a name that is no option."""
        known = {spec.name for spec in dataclasses.fields(self)}  # type: ignore[arg-type]
        for name in changes.keys() - known:
            raise InputError(f"{name}: unknown option; must be one of {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def changed(self) -> dict[str, Any]:
        """The values that are not the default."""
        pairs = ((spec, getattr(self, spec.name)) for spec in dataclasses.fields(self))  # type: ignore[arg-type]
        return {spec.name: value for spec, value in pairs if value != spec.default}

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, spec.name)
            rule = _broken_rule(spec.type, value)
            if rule is not None:
                raise InputError(f"{flag_of(spec)} {value}: must be {rule}")
            if spec.metadata.keys() & {"low", "above", "high", "choices"}:
                check_rules(f"{flag_of(spec)} {value}", value, spec.metadata)


@dataclass(frozen=True)
class TrainOptions(Options):
    """Options of `gcn.train` and `gcn train`. A value of None leaves the choice to the training."""

    linked: tuple[Any, ...] = option(
        (),
        "Learn this map together with SOURCE, for example its normals; what it is, as normal= or "
        "roughness=, is found by its name or its values. Repeatable.",
        group="Input",
        metavar="[KIND=]FILE",
        kind="input",
        flags=("--map",),
    )
    mask: Any = option(
        None,
        "Image of the size of SOURCE; nothing is learned where it is white.",
        group="Input",
        kind="input",
    )
    alpha: Alpha = option(
        "auto",
        "Transparency: unknown pixels (mask), one more channel (channel), or white (drop).",
        group="Input",
    )
    preset: str | None = option(
        None,
        "Settings to start from, see below.  [default: default]",
        group="Training",
        metavar="NAME",
        kind="preset",
    )
    config: Any = option(
        None, "TOML file of settings; options override it.", group="Training", kind="input"
    )
    settings: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "Settings by name, also given as arguments."}
    )
    max_time: float | None = option(
        None,
        "Finish within this time, as 90s, 5m or 1.5h. Plans a shorter training; with "
        "--iterations, stops and saves at the limit.",
        group="Training",
        kind="time",
        above=0,
    )
    extend: int | None = option(
        None,
        "Train a finished run further: for iterations, as 500, or for a time, as 2m.",
        group="Training",
        kind="extension",
        low=1,
    )
    extend_time: float | None = argument(
        None, "Train a finished run further for this time, in seconds.", above=0
    )
    output: Any = option(
        None,
        "Run folder.  [default: runs/NAME of the first SOURCE]",
        group="Output",
        metavar="FOLDER",
        kind="file",
        flags=("-o", "--output"),
    )
    overwrite: bool = option(False, "Replace a run that exists.", group="Output")
    resume: Resume = option(
        "auto",
        "Resume a run that exists (auto), refuse to (never), or refuse to start a new one (must).",
        group="Output",
    )
    save_every: float = option(
        60.0, "Time between two checkpoints.", group="Output", kind="time", above=0
    )
    preview_every: int | None = option(
        None,
        "Iterations between two preview images; 0 writes none.  [default: ten in all]",
        group="Output",
        low=0,
    )
    tensorboard: bool = option(
        False,
        "Also write event files to FOLDER/tensorboard; needs gcn-cli[tensorboard].",
        group="Output",
    )
    device: str = argument("auto", "auto, cpu, cuda, cuda:1 or mps.")
    precision: Precision = argument("auto", "Number format of feature maps.")

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> Self:
        """Options from keyword arguments; those that are no option are config settings."""
        names = {spec.name for spec in dataclasses.fields(cls)}
        chosen = {name: value for name, value in keywords.items() if name in names}
        others = {name: value for name, value in keywords.items() if name not in names}
        return cls(**chosen | {"settings": {**chosen.get("settings", {}), **others}})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume == "must" and self.overwrite:
            raise InputError("--resume must, --overwrite: give only one of them")
        if self.extend is not None or self.extend_time is not None:
            if self.overwrite:
                raise InputError("--extend, --overwrite: give only one of them")
            if self.resume == "never":
                raise InputError("--extend, --resume never: give only one of them")
        if self.extend_time is not None and self.max_time is not None:
            raise InputError("--extend, --max-time: two times; give only one of them")


@dataclass(frozen=True)
class SampleOptions(Options):
    """Options of `Model.synthesize` and `gcn synthesize`. None leaves a value to the model.

    Images (start, guide, mask) are paths or whatever `gcn_cli.inputs.open_image` takes; start and
    guide are a list with one image for each linked map. Sizes are (width, height).
    """

    size: tuple[int, int] | None = option(
        None,
        "Size of the images: 512, WIDTHxHEIGHT, or auto: near that of training, whole periods of a "
        "regular pattern.  [default: as in training]",
        group="Sampling",
        metavar="WIDTHxHEIGHT|auto",
        kind="sample size",
        flags=("-s", "--size"),
    )
    steps: int | None = option(
        None,
        "Evaluations of the network for each image; more is slower.  [default: 25; objects 60; "
        "published models 100]",
        group="Sampling",
        low=0,
        high=MAX_STEPS,
    )
    seed: int = argument(0, "Seed of all random numbers.", low=0)
    start: Any = option(
        "noise",
        "Start of sampling: noise, an image or a folder of linked maps, or the chains of a "
        "published model (chains).",
        group="Sampling",
        metavar="noise|chains|IMAGE",
        kind="input",
    )
    noise_level: float | None = option(
        None,
        "Noise added to the --start image, in standard deviations of the training image: less "
        "keeps more of it.  [default: 1]",
        group="Sampling",
        above=0,
    )
    seamless: Seamless | None = option(
        None,
        "Axes along which the images tile.  [default: both; off for objects]",
        group="Sampling",
    )
    temperature: float = option(
        1.0,
        "Scale of the variance of the Langevin noise: below 1 smoother, above 1 more varied than "
        "the training images.",
        group="Sampling",
        above=0,
        high=100,
    )
    restarts: int = option(
        0,
        "Times that the chains return to a noise level of 3: shapes get clearer, contrast rises.",
        group="Sampling",
        low=0,
        high=1000,
    )
    regularity: float = option(
        0.0,
        "How straight the lattice of a regular pattern is: 0 as in the training image, 1 strict.",
        group="Sampling",
        low=0,
        high=1,
    )
    guide: Any = option(
        None,
        "Follow the large shapes of this image; linked maps do so in the first map, or in all with "
        "a folder of maps.",
        group="Guidance",
        metavar="IMAGE",
        kind="input",
    )
    guide_strength: float | None = option(
        None,
        "How closely to follow --guide, 0 to 1.  [default: 0.5]",
        group="Guidance",
        low=0,
        high=1,
    )
    blend: Any = option(
        None,
        "Second model, used where --mask is white.",
        group="Guidance",
        metavar="RUN",
        kind="file",
    )
    mask: Any = option(
        None,
        "Where to use --blend; resized to the images.",
        group="Guidance",
        metavar="IMAGE",
        kind="input",
    )
    variants: int | None = option(
        None,
        "Make N tiles that fit each other in any order: their edges are the same, their insides "
        "differ.",
        group="Tiles",
        metavar="N",
        low=1,
        high=10_000,
    )
    border: int | None = option(
        None,
        "Width in pixels of the band along the edges that such tiles share.  [default: 32]",
        group="Tiles",
        metavar="PIXELS",
        low=1,
    )
    edges: int | None = option(
        None,
        "Make a Wang set: edges of N kinds in each direction, 2 or 3, and a tile for every "
        "combination (16 or 81); tiles fit where edges of one kind meet.",
        group="Tiles",
        low=2,
        high=3,
    )
    tile: Tile = option(
        "auto",
        "Compute large images in blocks of this side, which takes less memory and gives the same "
        "image; auto does so when memory is short.",
        group="Hardware",
        metavar="auto|off|N",
        kind="tile",
    )
    step_size: float | None = argument(None, "Size of Langevin steps of published models.")
    noise: bool = argument(True, "False: published models descend towards a mode, without noise.")
    padding_mode: PaddingMode | None = argument(None, "Padding of images; see the settings.")
    resampling_steps: int | None = argument(
        None, "Times that every noise level is sampled in a repair.", low=1
    )
    fit: bool = argument(
        False, "Move the size to the nearest that holds whole periods of a regular pattern."
    )

    @property
    def start_kind(self) -> Literal["noise", "chains", "image"]:
        """What `start` is."""
        if isinstance(self.start, str) and self.start in ("noise", "chains"):
            return cast(Literal["noise", "chains"], self.start)
        return "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read_size()
        if self.padding_mode is not None:
            try:
                object.__setattr__(self, "padding_mode", PaddingMode(self.padding_mode))
            except ValueError as error:
                known = ", ".join(PaddingMode)
                raise InputError(
                    f"padding_mode {self.padding_mode}: must be one of {known}"
                ) from error
        if self.step_size is not None:
            check_rules(f"step_size {self.step_size}", self.step_size, {"above": 0, "high": 1e6})
        if self.guide_strength is not None and self.guide is None:
            raise InputError("--guide-strength: needs --guide")
        if (self.blend is None) != (self.mask is None):
            raise InputError("--blend, --mask: give both, a model and where to use it")
        self._check_tiles()

    def _check_tiles(self) -> None:
        """Raise InputError for what does not go with tiles that fit each other."""
        if self.variants is None and self.edges is None:
            if self.border is not None:
                raise InputError(f"--border {self.border}: needs --variants or --edges")
            return
        for is_given, flag in (
            (self.start_kind != "noise", "--start"),
            (self.guide is not None, "--guide"),
            (self.blend is not None, "--blend"),
            (self.seamless not in (None, "both"), f"--seamless {self.seamless}"),
        ):
            if is_given:
                raise InputError(
                    f"{flag}: does not go with --variants and --edges, whose tiles are seamless "
                    "samples from noise; leave it out"
                )

    def _read_size(self) -> None:
        """Turn the forms of `size` that callers give, "auto" and one side, into a pair."""
        size: Any = self.size
        if size is None or size == "auto":
            object.__setattr__(self, "size", None)
            object.__setattr__(self, "fit", self.fit or size == "auto")
            return
        sides = (size, size) if isinstance(size, int) else size
        try:
            width, height = map(operator.index, sides)
        except (TypeError, ValueError) as error:
            rule = 'must be a side, as 512, (width, height), or "auto"'
            raise InputError(f"--size {size}: {rule}") from error
        if min(width, height) < 1:
            raise InputError(f"--size {width}x{height}: must be 1x1 or more")
        object.__setattr__(self, "size", (width, height))


@dataclass(frozen=True)
class ReconstructOptions(Options):
    """Options of `gcn reconstruct`: how an image is auto-encoded, repaired or denoised.

    Without `mask`, `outpaint`, `make_seamless`, `upscale` and `denoise` it is auto-encoded.
    """

    steps: int | None = option(
        None,
        "Auto-encode this often (more approaches an energy minimum). In a repair: number of noise "
        "levels (repairs take almost twice as many evaluations).  [default: 1; repairs 25]",
        group="Reconstruction",
        low=1,
        high=MAX_STEPS,
    )
    noise_level: float | None = option(
        None,
        "Noise level of the auto-encoder, in standard deviations of the training image.  "
        "[default: 1]",
        group="Reconstruction",
        above=0,
    )
    mask: Any = option(
        None,
        "Repair IMAGE where this image of the same size is white, or transparent (alpha).",
        group="Repair",
        metavar="IMAGE|alpha",
        kind="input",
    )
    outpaint: tuple[int, int, int, int] | None = option(
        None, "Pixels to add at the left, top, right and bottom.", group="Repair", kind="sides"
    )
    make_seamless: int | None = option(
        None,
        "Replace a band of this width along the edges, so that IMAGE tiles.",
        group="Repair",
        metavar="PIXELS",
        low=1,
    )
    upscale: int | None = option(
        None,
        "Enlarge IMAGE 2 or 4 times, with details of the texture. The means of blocks of pixels "
        "are IMAGE, exactly.",
        group="Upscaling",
        metavar="2|4",
    )
    temperature: float | None = option(
        None,
        "With --upscale: 1 is as crisp as the texture, less is closer to what IMAGE shows.  "
        "[default: 0.4]",
        group="Upscaling",
        above=0,
        high=100,
    )
    seamless: Seamless | None = option(
        None,
        "Axes along which IMAGE tiles: a repair near a border continues at the opposite one.  "
        "[default: as found in IMAGE]",
        group="Repair",
    )
    count: int | None = option(
        None,
        "Variants of a repair, or of --upscale.  [default: 1]",
        group="Repair",
        low=1,
        flags=("-n", "--count"),
    )
    seed: int | None = option(
        None, "Seed of a repair, or of --upscale.  [default: 0]", group="Repair", low=0
    )
    denoise: float | Literal["auto"] | None = option(
        None,
        "Remove white noise of this deviation in gray levels; auto estimates it.",
        group="Denoising",
        metavar="auto|SIGMA",
        kind="sigma",
    )
    resampling_steps: int = argument(
        2, "Times that each noise level is sampled; 1 shows the border of the repair.", low=1
    )

    @property
    def is_repair(self) -> bool:
        """Whether a part of the image is replaced."""
        return any(part is not None for part in (self.mask, self.outpaint, self.make_seamless))

    @property
    def auto_encodes(self) -> bool:
        """Whether the image is auto-encoded."""
        return not self.is_repair and self.upscale is None and self.denoise is None

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks = (self.mask, self.outpaint, self.make_seamless, self.upscale, self.denoise)
        if sum(task is not None for task in tasks) > 1:
            raise InputError(
                "--mask, --outpaint, --make-seamless, --upscale, --denoise: give only one of them"
            )
        if self.upscale not in (None, 2, 4):
            raise InputError(f"--upscale {self.upscale}: must be 2 or 4")
        is_random = self.is_repair or self.upscale is not None
        if not is_random and (self.count is not None or self.seed is not None):
            raise InputError(
                "--count, --seed: need --mask, --outpaint, --make-seamless or --upscale; no other "
                "is random"
            )
        if self.seamless is not None and (not is_random or self.make_seamless is not None):
            raise InputError(
                f"--seamless {self.seamless}: needs --mask, --outpaint or --upscale; "
                "--make-seamless makes an image tile that does not"
            )
        if self.temperature is not None and self.upscale is None:
            raise InputError(f"--temperature {self.temperature}: needs --upscale; leave it out")
        if self.noise_level is not None and not self.auto_encodes:
            raise InputError("--noise-level: only for auto-encoding; leave it out")
        if self.denoise is not None and self.steps is not None:
            raise InputError("--steps: --denoise takes a single step; leave it out")


@dataclass(frozen=True)
class FileOptions(Options):
    """How commands compress image files."""

    quality: int | None = option(
        None,
        "Quality of .jpg, .avif and .webp, 1 to 100.  [default: 95; .webp is lossless]",
        group="Output",
        low=1,
        high=100,
    )
