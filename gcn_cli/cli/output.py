"""Samples and repairs on their way to files: names, quality, the best of several, sheets."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcn_cli import __version__ as VERSION
from gcn_cli import images, metrics, shading
from gcn_cli.cli.console import print_result
from gcn_cli.errors import InputError, TakenError
from gcn_cli.images import Image, SourceFile, TextureMap, gltf, write_bytes
from gcn_cli.images.engines import Layout, MapFile
from gcn_cli.images.image import mode_of, shrunk_to, side_by_side, tiled
from gcn_cli.images.materials import is_data
from gcn_cli.images.provenance import without_folders
from gcn_cli.metrics import SMALLEST_SIDE, TextureMetrics
from gcn_cli.model import Model
from gcn_cli.runs.folder import OutputFile, model_name
from gcn_cli.runs.grades import median, rounded
from gcn_cli.tile_set import TileSet

log = logging.getLogger(__name__)

LAID = (4, 6)  # rows and columns of tiles in the picture of a tile set
LONGEST_SHEET = 4096  # pixels, of that picture
LISTED_SOURCES = 8  # files of the training images that metadata name
LIT_SIDE = 768  # pixels: longest side of an animation of the light
LIT_FRAMES, LIT_MILLISECONDS = 24, 125  # a turn of the light in three seconds

Quality = dict[str, float] | None
"""Texture metrics of a sample; None if it is too small to measure."""


def check_files(
    files: Iterable[tuple[str, TextureMap]], size: tuple[int, int], quality: int | None
) -> None:
    """Raise InputError if a file cannot hold its map of `size` (width, height), or no --quality.

    Logs what the formats of the files do not keep, once for each map.
    """
    kinds: dict[tuple[str, TextureMap], str] = {}  # a million files are of few
    for path, texture_map in files:
        kinds.setdefault((path.rpartition(".")[2], texture_map), path)
    said, any_takes_quality = set[str](), False
    for (_, texture_map), path in kinds.items():
        images.check_format(path, size[::-1], texture_map)
        any_takes_quality |= images.takes_quality(path)
        lost = " or ".join(images.losses(path, texture_map, quality))
        key = f"{texture_map.name}{Path(path).suffix}"
        if lost and key not in said:
            said.add(key)
            log.warning("%s: this format does not keep %s; .png does", path, lost)
    if quality is not None and not any_takes_quality:
        raise InputError(
            f"--quality {quality}: is for .jpg, .webp and .avif; leave it out, or name such a file"
        )


def write_all(
    outputs: Iterable[OutputFile],
    samples: Iterable[Tensor],
    layouts: Iterable[Layout],
    *,
    as_json: bool,
    overwrite: bool,
    skip_existing: bool = False,
    quality: int | None = None,
    qualities: Sequence[Quality] | None = None,
    origins: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Write each sample (C, H, W), and print its path unless --json or the file is stdout.

    `layouts` are the files of each sample. `quality` is --quality of lossy files, `qualities` are
    metrics, which grow with the samples. `origins`: how each sample is made, for its metadata.
    Without `overwrite` a file that another job has written meanwhile is kept: a default name
    changes to the next free one, `skip_existing` goes on to the next file, else TakenError is
    raised. Returns a record of each file written.
    """
    records: list[dict[str, Any]] = []
    each = zip(outputs, samples, layouts, origins, strict=False)
    for place, (output, sample, layout, origin) in enumerate(each):
        seam_x, seam_y = metrics.seams(sample)
        written = write_maps(
            output,
            sample,
            layout,
            origin,
            quality,
            overwrite=overwrite,
            skip_existing=skip_existing,
        )
        for name, path in written:
            if path == "-":
                continue
            height, width = sample.shape[1:]
            record: dict[str, Any] = {"path": path, "seed": output.seed, "index": output.index}
            record |= {"map": name} if name else {}
            record |= {"edges": origin["edges"]} if "edges" in origin else {}
            record |= {"width": width, "height": height, "seam_x": seam_x, "seam_y": seam_y}
            if qualities is not None:
                record["quality"] = qualities[place]
            records.append(record)
            if not as_json:
                print_result(path)
    return records


def write_maps(
    output: OutputFile,
    sample: Tensor,
    layout: Layout,
    origin: Mapping[str, Any],
    quality: int | None,
    *,
    overwrite: bool,
    skip_existing: bool = False,
) -> list[tuple[str, str]]:
    """Write all files of a sample (C, H, W) under one name, or none.

    With `skip_existing`, files that exist are left out. Returns the name of the map, or "", and the
    path of each.
    """
    new, record = not overwrite, {**origin, "seed": output.seed, "index": output.index}
    written: list[tuple[str, str]] = []
    paths = output.paths(layout.names)

    def write(file: MapFile | None, path: str) -> None:
        if file is None:
            names = [Path(path).name for path in paths]
            write_bytes(Path(path), material_file(path, names, layout, sample), new=new)
            return
        pixels = file.pixels(sample)
        write_map(pixels, path, file.texture_map, record, new=new, quality=quality)

    jobs: list[tuple[MapFile | None, str]] = list(zip(layout.files, paths, strict=True))
    if output.material is not None:
        jobs.append((None, output.material))
    for file, path in jobs:
        try:
            write(file, path)
        except TakenError:
            if skip_existing:
                log.info("%s: exists already, kept (--skip-existing)", path)
                continue
            for _, other in written:  # new files of this sample
                Path(other).unlink(missing_ok=True)
            if not output.default:
                raise
            free = output.with_free_name(layout.names)
            return write_maps(free, sample, layout, origin, quality, overwrite=False)
        written.append(("" if file is None else file.texture_map.name, path))
    return written


def material_file(path: str, images: Sequence[str], layout: Layout, sample: Tensor) -> bytes:
    """The text of a glTF file `path` of the files of a layout, whose names are `images`."""
    kinds = {image: file.kinds for image, file in zip(images, layout.files, strict=True)}
    transparent = any(
        "albedo" in file.kinds and file.texture_map.mode.endswith("A") for file in layout.files
    )
    height, width = sample.shape[1:]
    return gltf.document(
        Path(path).stem, kinds, (height, width), f"gcn {VERSION}", transparent=transparent
    )


def write_map(
    pixels: Tensor,
    path: str,
    texture_map: TextureMap,
    record: Mapping[str, Any],
    *,
    new: bool,
    quality: int | None,
) -> None:
    """Write an image (C, H, W) of a map, with its bit depth, profile, resolution and a record.

    Size and map are added to the record.
    """
    depth, profile, dpi = texture_map.bit_depth, texture_map.icc_profile, texture_map.dpi
    about = {**record, **file_facts(pixels, texture_map)}
    images.write(pixels, path, depth, profile, new=new, quality=quality, dpi=dpi, record=about)


def file_facts(pixels: Tensor, texture_map: TextureMap) -> dict[str, Any]:
    """What the record of a file says of its image (C, H, W): size, and the name of the map."""
    size = {"width": pixels.shape[2], "height": pixels.shape[1]}
    return size | ({"map": texture_map.name} if texture_map.name else {})


def origin_of(
    command: str, model: Model, options: Mapping[str, Any], inputs: Iterable[str | None]
) -> dict[str, Any]:
    """How images are made, for the metadata of their files: all but seed, index, size and map.

    command: as typed. options: those that are not the default. inputs: files that are used besides
    the model; other texts, such as "-" and "noise", are left out.
    """
    assert model.path is not None
    sources = [source._asdict() for source in model.checkpoint.sources]
    origin: dict[str, Any] = {
        "software": f"gcn {VERSION}",
        "command": command,
        "model": model_name(model.path),
        "model_sha256": model.checkpoint.digest,
        "sources": sources[:LISTED_SOURCES],
    }
    if len(sources) > LISTED_SOURCES:
        origin["source_count"] = len(sources)
    plain = {
        name: without_folders(value) if isinstance(value, str) else value
        for name, value in options.items()
    }
    files = [SourceFile.of(path)._asdict() for path in inputs if path and Path(path).is_file()]
    return origin | {"options": plain} | ({"inputs": files} if files else {})


def maps_like_sources(
    maps: Sequence[TextureMap], sources: Sequence[Image], *, drop_alpha: bool, factor: int = 1
) -> list[TextureMap]:
    """Maps with the mode, bit depth and profile of the images that are repaired or enlarged.

    `drop_alpha`: the result has no transparency unless the model has. `factor`: by which images
    are enlarged; they keep their physical size. A missing source has no map; the repair refuses it.
    """
    result = []
    for texture_map, source in zip(maps, sources, strict=False):
        keeps_alpha = source.mode.endswith("A") and not drop_alpha
        alpha = "A" if texture_map.mode.endswith("A") or keeps_alpha else ""
        depth = 16 if source.bit_depth == 16 else 8
        mode = source.mode.rstrip("A") + alpha
        profile = None if is_data(texture_map.kind) else source.icc_profile
        dpi = None if source.dpi is None else factor * source.dpi
        like = replace(texture_map, mode=mode, bit_depth=depth, icc_profile=profile, dpi=dpi)
        result.append(like)
    return result


def write_sheet(
    samples: Sequence[Tensor],
    model: Model,
    path: str,
    origin: Mapping[str, Any],
    *,
    axes: tuple[bool, bool],
    overwrite: bool,
    quality: int | None,
) -> None:
    """Write samples side by side; a single one two by two, to show its seams.

    A material is also shown lit. axes: whether samples tile, vertically and horizontally.
    """
    whole = sheet_map(model.maps)

    def row(sample: Tensor, times: int = 1) -> Tensor:
        maps = side_by_side(sample.repeat(1, times, times), model.maps)
        if not shading.has_relief(model.maps):
            return maps
        light = shading.lit(shading.material(sample, model.maps, axes))
        colors = Image(maps, mode_of(len(maps)), 32).to_mode("RGB")
        return torch.cat([colors, light.repeat(1, times, times)], dim=2)

    rows = [row(sample) for sample in samples[1:]]
    sheet = images.grid(torch.stack([row(samples[0]), *rows])) if rows else row(samples[0], 2)
    write_map(sheet, path, replace(whole, dpi=None), origin, new=not overwrite, quality=quality)


def write_laid_tiles(
    samples: Sequence[Tensor],
    model: Model,
    path: str,
    origin: Mapping[str, Any],
    *,
    tiles: TileSet,
    overwrite: bool,
    quality: int | None,
) -> None:
    """Write a picture of the tiles of the first seed, laid at random in LAID rows and columns.

    It is at most LONGEST_SHEET pixels wide or high. Of linked maps the first is shown.
    """
    shown = model.maps[0]
    rows = [
        torch.cat([samples[index][: shown.channels] for index in row], dim=2)
        for row in tiles.arrange(*LAID)
    ]
    laid = Image(torch.cat(rows, dim=1), shown.mode, 32)
    shrink = min(1.0, LONGEST_SHEET / max(laid.size))
    height, width = (round(shrink * side) for side in laid.size)
    sheet = laid.resized((height, width)).pixels
    write_map(sheet, path, replace(shown, dpi=None), origin, new=not overwrite, quality=quality)


def sheet_map(maps: Sequence[TextureMap]) -> TextureMap:
    """What the sheet of `write_sheet` is: colors where a material is shown lit."""
    if len(maps) == 1 and shading.has_relief(maps):
        return TextureMap("", "RGB", maps[0].bit_depth)
    return images.sheet_map(maps)


def lit_map(maps: Sequence[TextureMap]) -> TextureMap:
    """What a lit material is: colors of 8 bits in the profile of its albedo."""
    albedo = [one for one in maps if one.kind == "albedo" and one.mode.startswith("RGB")]
    return TextureMap(icc_profile=albedo[0].icc_profile if albedo else None)


def write_lit(
    sample: Tensor,
    maps: Sequence[TextureMap],
    path: str,
    origin: Mapping[str, Any],
    *,
    axes: tuple[bool, bool],
    overwrite: bool,
    quality: int | None,
    on_step: Callable[[int, int], None],
) -> None:
    """Write a sample (C, H, W) of a material lit, two by two along the axes that tile.

    A .webp shows a light that goes once round, other files have it at the upper left. on_step(done,
    total) counts the frames.
    """
    if any(one.kind == "normal" and one.y_up is None for one in maps):
        log.warning(
            "--lit %s: whether green of the normal map points up is not known, it is taken as up; "
            "if it is not, train with --normals y-down", path,
        )  # fmt: skip
    whole, new = lit_map(maps), not overwrite
    if Path(path).suffix.lower() != ".webp":
        image = tiled(shading.lit(shading.material(sample, maps, axes)), axes)
        write_map(image, path, whole, origin, new=new, quality=quality)
        return
    small = shrunk_to(sample, LIT_SIDE // (2 if any(axes) else 1))
    surface = shading.material(small, maps, axes)
    record = {**origin, **file_facts(tiled(small, axes), whole)}

    def frames() -> Iterator[Tensor]:
        for index, azimuth in enumerate(shading.turning(LIT_FRAMES)):
            yield tiled(shading.lit(surface, azimuth), axes)
            on_step(index + 1, LIT_FRAMES)

    images.write_animation(
        frames(), path, LIT_MILLISECONDS, whole.icc_profile,
        new=new, quality=80 if quality is None else quality, record=record,
    )  # fmt: skip


def texture_metrics(model: Model, exemplar: str | None, *, required: bool) -> TextureMetrics | None:
    """Metrics against an exemplar's file, or against the exemplar that the run keeps.

    Without an exemplar returns None, or raises InputError if `required`.
    """
    try:
        return model.texture_metrics(None if exemplar is None else images.read_image(exemplar))
    except InputError:
        if required:
            raise
        return None


def require_measurable(best_of: int, size: tuple[int, int]) -> None:
    """Raise InputError if samples of `size` (width, height) are too small to compare."""
    if min(size) < SMALLEST_SIDE:
        raise InputError(
            f"--best-of {best_of}: samples of {size[0]}x{size[1]} pixels are too small to grade; "
            f"give a --size of {SMALLEST_SIDE} a side or more, or leave --best-of out"
        )


def best_samples(
    count: int,
    samples: Iterator[Tensor],
    model: Model,
    measures: TextureMetrics,
    qualities: list[Quality],
) -> Iterator[Tensor]:
    """The best of every `count` samples (C, H, W); its quality is appended to `qualities`.

    Small samples are not measured. Raises InputError if there is a choice among small samples.
    """
    while group := list(islice(samples, 1)):
        height, width = group[0].shape[1:]
        if min(height, width) < SMALLEST_SIDE:
            if count > 1:  # the size of a start image is known only here
                require_measurable(count, (width, height))
            qualities.append(None)
            yield group[0]
            continue
        group += islice(samples, count - 1)
        measured = [measures.measure(sample[: model.maps[0].channels]) for sample in group]
        best = min(range(len(group)), key=lambda place: measured[place]["quality"])
        qualities.append(measured[best])
        yield group[best]


def summarize_quality(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The median quality of the records that have a quality, whose values are rounded in place."""
    measured = [record for record in records if "quality" in record]
    if not measured:
        return {}
    values = [record["quality"] for record in measured if record["quality"] is not None]
    for record in measured:
        record["quality"] = None if record["quality"] is None else rounded(record["quality"])
    return {"quality": rounded(median(values)) if values else None}
