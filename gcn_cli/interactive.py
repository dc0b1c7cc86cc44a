"""For people who use the Python API: errors in its words, progress bars, models in notebooks."""

import base64
import dataclasses
import functools
import html
import inspect
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from PIL import Image

from gcn_cli.config import OWN_OPTIONS, option_name
from gcn_cli.errors import GcnError
from gcn_cli.options import ReconstructOptions, SampleOptions, TrainOptions, flag_of

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def as_arguments(message: str) -> str:
    """A message about options of a command in the words of the Python API.

    "--noise-level 0" becomes "noise_level 0", "--set crop=9" becomes "crop=9".
    """
    names = {option_name(name): name for name in OWN_OPTIONS} | {"--model": "run", "-o": "output"}
    for kind in (ReconstructOptions, SampleOptions, TrainOptions):
        names |= {flag_of(spec): spec.name for spec in dataclasses.fields(kind)}

    def argument(found: re.Match[str]) -> str:
        flag = found[0]
        if flag.startswith("--no-") and flag.replace("no-", "", 1) in names:
            return f"{names[flag.replace('no-', '', 1)]}=False"
        return names.get(flag, flag[2:].replace("-", "_"))

    return re.sub(r"(?<![\w-])(--[a-z][a-z-]*|-o\b)", argument, message.replace("--set ", ""))


@contextmanager
def _argument_names() -> Iterator[None]:
    """Let errors of gcn name arguments; their `message` still names options."""
    try:
        yield
    except GcnError as error:
        error.args = (as_arguments(error.message),)
        raise


def public(function: F) -> F:
    """A function or generator of the Python API, whose errors name arguments."""

    @functools.wraps(function)
    def generator(*args: Any, **keywords: Any) -> Any:
        with _argument_names():
            yield from function(*args, **keywords)

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        with _argument_names():
            return function(*args, **keywords)

    return generator if inspect.isgeneratorfunction(function) else call  # type: ignore[return-value]


def public_methods(kind: type[T]) -> type[T]:
    """A class of the Python API: `public` for each of its methods."""
    for name, member in list(vars(kind).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(kind, name, public(member))
    return kind


OnProgress = Callable[..., None]
"""Called with the steps done, the steps in all and, in a training, the metrics."""


@contextmanager
def progress_bar(name: str, on_step: OnProgress | None, *, shown: bool) -> Iterator[OnProgress]:
    """A function that moves a bar (of tqdm.auto: in a notebook a widget), then calls `on_step`.

    shown: without it no bar is made.
    """
    if not shown:
        yield on_step or (lambda *_: None)
        return
    from tqdm.auto import tqdm

    with tqdm(desc=name) as bar:

        def update(done: int, total: int, *more: Mapping[str, float]) -> None:
            if bar.total != total:  # the first call, or a time limit changed the length
                bar.reset(total)
            if more and "loss" in more[0]:
                bar.set_postfix(loss=more[0]["loss"], refresh=False)
            bar.update(done - bar.n)
            if on_step is not None:
                on_step(done, total, *more)

        yield update


def card(title: str, facts: Mapping[str, Any], picture: Image.Image | None) -> str:
    """A picture and a table of facts beside it, as HTML that takes the colors of the page."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    image = ""
    if picture is not None:
        data = io.BytesIO()
        picture.save(data, format="png")
        source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        image = f'<img alt="a sample of the model" src="{source}" style="margin:0">'
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f"{image}<div><strong>{html.escape(title)}</strong><table>{rows}</table></div></div>"
    )
