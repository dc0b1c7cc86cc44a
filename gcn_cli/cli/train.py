"""gcn train: pictures in, a run folder out."""

from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.options import (
    Duration,
    config_options,
    given_config,
    linked_option,
    machine_options,
    overwrite_option,
)
from gcn_cli.errors import InterruptedRunError
from gcn_cli.presets import PRESET_NOTES, PRESETS

if TYPE_CHECKING:
    from gcn_cli.runs.observed import Alpha
    from gcn_cli.runs.training import Resume

_PRESET_HELP = "published settings. " + "; ".join(
    f"{name}: {note}" for name, note in PRESET_NOTES.items()
)


@click.command("train")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o", "--output", metavar="RUN", help="run folder  [default: runs/<stem of the first SOURCE>]"
)
@linked_option
@click.option(
    "--mask", metavar="MASK", help="a picture of SOURCE's size, white where nothing is learned"
)
@click.option(
    "--alpha",
    type=click.Choice(["auto", "mask", "channel", "drop"]),
    default="auto",
    show_default=True,
    help="transparency: mask, holes of which nothing is learned; channel, learned like a colour; "
    "drop, laid on white; auto says which it takes",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help=_PRESET_HELP)
@click.option("--config", "config_file", metavar="FILE", help="TOML file of config values")
@click.option(
    "--max-time",
    type=Duration(),
    help="90s, 5m, 1.5h: a ladder is planned to be whole by then, unless --iterations are given; "
    "what is not is saved, to go on",
)
@click.option(
    "--preview-every",
    type=click.IntRange(min=0),
    help="iterations between previews of the samples; 0 writes none  [default: ten a run]",
)
@click.option(
    "--save-every",
    type=Duration(),
    default=60.0,
    help="time between checkpoints  [default: 60s]",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never", "must"]),
    default="auto",
    show_default=True,
    help="go on with a run that is there; never: refuse to; must: refuse to begin a new one",
)
@overwrite_option
@machine_options
@config_options
def command(
    sources: tuple[str, ...],
    output: str | None,
    linked: tuple[str, ...],
    mask: str | None,
    alpha: "Alpha",
    preset: str | None,
    config_file: str | None,
    max_time: float | None,
    preview_every: int | None,
    save_every: float,
    resume: "Resume",
    overwrite: bool,
    device: str,
    precision: str,
    threads: int | None,
    **options: Any,
) -> None:
    """Learn from SOURCE: one picture, several pictures of one texture, a folder, or - for stdin.

    The same command again goes on where a run stopped. What --config and the options leave out
    comes from the preset, then from the defaults below.

    \b
    gcn train texture.jpg
    gcn train texture.jpg --preset quick -o runs/draft
    gcn train albedo.png --with normal.png --with roughness.png -o runs/bark
    gcn train photo.png --mask scratches.png
    gcn train faces/ --preset object --size 64
    gcn train texture.jpg --preset paper-texture --max-time 5m
    """
    from gcn_cli.cli.console import Progress, say
    from gcn_cli.runs.folder import refuse_inside, run_for
    from gcn_cli.runs.library import train
    from gcn_cli.runtime import StopRequest, set_threads

    if resume == "must" and overwrite:
        raise click.UsageError("--resume must, --overwrite: one goes on, the other begins anew")
    set_threads(threads)
    run = output or str(run_for(list(sources)))
    refuse_inside(sources, run)
    stop = StopRequest()
    with stop.listening(), Progress("train") as progress:
        model = train(
            list(sources),
            linked=linked,
            mask=mask,
            alpha=alpha,
            preset=preset,
            config=config_file,
            output=run,
            overwrite=overwrite,
            resume=resume,
            max_time=max_time,
            preview_every=preview_every,
            save_every=save_every,
            device=device,
            precision=precision,
            on_step=progress.update,
            should_stop=stop,
            **given_config(options),
        )
    if stop.signal is not None and not model.complete:
        message = f"{stop.signal.name} after iteration {progress.done}; saved"
        if stop.signal.name == "SIGINT":
            say(message)
            raise KeyboardInterrupt
        raise InterruptedRunError(f"{message}, the same command goes on")
    click.echo(run)
