"""What is asked of a training, and what its run was asked for before.

A run keeps its preset, its explicit settings, and the names of its maps and mask, so that going on
needs none of them typed again. What is typed and differs is refused.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcn_cli import checkpoint as checkpoint_file
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import SETTINGS, Config, from_json, option_name, option_text, to_json
from gcn_cli.errors import InputError
from gcn_cli.images.materials import split_kind
from gcn_cli.images.provenance import without_folders
from gcn_cli.options import TrainOptions
from gcn_cli.presets import build_config
from gcn_cli.runs.folder import MODEL_FILE
from gcn_cli.training_images import TrainingImages

log = logging.getLogger(__name__)

REMEDY = "--overwrite starts over, -o names another run"


def complete_request(options: TrainOptions, file: Mapping[str, Any]) -> tuple[Config, TrainOptions]:
    """The requested config, and the options with all explicit settings: typed, or of the run.

    `file` are the settings of --config. Raises InputError for settings that contradict each other,
    or those of the run.
    """
    typed = {**file, **options.settings}
    preset = options.preset or typed.get("preset")
    typed.pop("preset", None)
    description = None if options.overwrite else _description(options.output)
    if description is None:
        config = build_config(options.settings, file, options.preset)
        return config, replace(options, settings=typed, preset=preset, config=None)
    run, before = options.output, from_json(description["requested"])
    # Files of earlier versions do not say what was asked for: a preset stands for all settings.
    asked = description.get("asked") or {"preset": preset, "settings": {}}
    if preset is not None and preset != (asked["preset"] or "default"):
        used = asked["preset"] or "default"
        raise InputError(f"{run}: trained with --preset {used}, not --preset {preset}; {REMEDY}")
    settings = {**asked["settings"], **typed}
    learner = {} if asked["preset"] else {"learner": before.learner}
    now = build_config(learner | settings, preset=asked["preset"])
    names = typed if description.get("asked") or preset is None else to_json(now)
    for name in names:
        old, new = (to_json(config).get(name) for config in (before, now))
        if old != new and not (name == "channels" and new is None):
            words = _setting_text(name, old)
            if name not in asked["settings"] and asked["preset"]:
                words = f"--preset {asked['preset']} ({words})"
            raise InputError(
                f"{run}: trained with {words}, not {_setting_text(name, new)}; {REMEDY}"
            )
    adopted = [f"--preset {asked['preset']}"] if asked["preset"] and preset is None else []
    adopted += [_setting_text(key, v) for key, v in asked["settings"].items() if key not in typed]
    if adopted:
        log.info("%s: as before, %s", run, " ".join(adopted))
    alpha = asked.get("alpha", "auto") if options.alpha == "auto" else options.alpha
    return before, replace(
        options, settings=settings, preset=asked["preset"], alpha=alpha, config=None
    )


def _description(run: object) -> dict[str, Any] | None:
    """The description of the model of a run; None without a model, or for a damaged one.

    The training itself says what is wrong with it.
    """
    path = None if run is None else Path(str(run)) / MODEL_FILE
    if path is None or not path.exists():
        return None
    try:
        description = checkpoint_file.read_description(path)
        from_json(description["requested"])
    except (KeyError, TypeError, ValueError, InputError):
        return None
    return description


def _setting_text(name: str, value: Any) -> str:
    if value is None and SETTINGS[name].metadata["none"] is None:
        return f"the default of {option_name(name)}"
    return option_text(name, value)


def asked_for(options: TrainOptions, requested: Config) -> dict[str, Any]:
    """What the model file keeps of the options; files are named without their folders."""
    values = to_json(requested)
    return {
        "preset": options.preset,
        "settings": {name: values[name] for name in options.settings if name in values},
        "alpha": options.alpha,
        "maps": _names(options.linked),
        "mask": _names([options.mask] if options.mask is not None else []),
    }


def _names(files: Sequence[Any]) -> list[str]:
    """Names of files, with KIND= if that was given; other images have none."""
    names = []
    for file in files:
        kind, path = split_kind(file) if isinstance(file, str) else (None, file)
        name = without_folders(str(path)) if isinstance(path, str | Path) else "an image"
        names.append(name if kind is None else f"{kind}={name}")
    return names


def check_images(
    run: Path | None, saved: Checkpoint, images: TrainingImages, options: TrainOptions
) -> None:
    """Raise InputError, with what differs, if a run was trained on other images."""
    if saved.data_digest == images.digest:
        return
    now = {"maps": _names(options.linked), "mask": _names([options.mask] if options.mask else [])}
    for key, flag in (("maps", "--map"), ("mask", "--mask")):
        before = saved.asked.get(key, now[key])
        if before != now[key]:
            texts = (" ".join(f"{flag} {n}" for n in names) for names in (before, now[key]))
            old, new = (text or f"no {flag}" for text in texts)
            raise InputError(f"{run}: trained with {old}, not {new}; {REMEDY}")
    names = [[source.name for source in sources] for sources in (saved.sources, images.sources)]
    old, new = (f"{', '.join(part[:3])}{', ...' * (len(part) > 3)}" for part in names)
    if old and new:
        change = f"another {new}" if old == new else f"{old}, not {new}"
        raise InputError(f"{run}: trained on other images: {change}; {REMEDY}")
    raise InputError(f"{run}: trained on other images; {REMEDY}")
