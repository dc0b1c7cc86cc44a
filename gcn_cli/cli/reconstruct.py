"""gcn reconstruct: sigma^2 B(I) of pictures, its error, and repeated auto-encoding."""

import json
from pathlib import Path

import click

from gcn_cli.cli.options import json_option, machine_options, model_option, overwrite_option


@click.command("reconstruct")
@click.argument("pictures", nargs=-1, required=True, metavar="IMAGE...")
@model_option
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="times the picture is auto-encoded, towards a mode of the model",
)
@click.option(
    "--level",
    type=click.FloatRange(min=0, min_open=True),
    help="noise level of a ladder, in deviations of its data  [default: 1]",
)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    help="folder of the reconstructions  [default: <run>/reconstructions]",
)
@overwrite_option
@json_option
@machine_options
def command(
    pictures: tuple[str, ...],
    model: str | None,
    steps: int,
    level: float | None,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    device: str,
    precision: str,
    threads: int | None,
) -> None:
    """Auto-encode IMAGE with the newest run, or with --model.

    Stdout has, for every picture: rms error in grey levels, error as a share of the picture's
    variance, PSNR in dB, and the residual |I - sigma^2 B(I)| / |I| at the last image, which is 0
    at a mode.
    """
    from gcn_cli.images import expand_sources, write
    from gcn_cli.runs.folder import model_path, refuse_existing
    from gcn_cli.runs.library import load
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    path = model_path(model)
    sources = expand_sources(pictures)
    folder = Path(output) if output else path.parent / "reconstructions"
    targets = [folder / f"{'stdin' if s == '-' else Path(s).stem}.png" for s in sources]
    for target in targets if output else []:
        refuse_existing(target, overwrite)
    loaded = load(path, device=device, precision=precision)
    for source, target in zip(sources, targets, strict=True):
        result, measures = loaded.auto_encode(source, steps, level)
        write(result, str(target))
        if as_json:
            click.echo(json.dumps({"image": source, "output": str(target), **measures}))
        else:
            words = "  ".join(f"{name} {value:.4g}" for name, value in measures.items())
            click.echo(f"{source}  {words}")
