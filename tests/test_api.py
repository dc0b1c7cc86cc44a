"""The public Python API: its names, what goes in and comes out, and what it never does."""

import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gcn_cli as gcn

SMALL: dict[str, Any] = {"layers": "8@5,8@3/2", "crop": 16, "margin": 2, "iterations": 4}
MACHINE: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.effect_noise((40, 32), 60).convert("RGB")


@pytest.fixture
def model(picture: Image.Image) -> gcn.Model:
    return gcn.train(picture, **MACHINE, **SMALL)


def test_the_public_names() -> None:
    assert gcn.__all__ == [
        "DivergedError", "GcnError", "InputError", "InterruptedRunError", "Model", "__version__",
        "load", "train",
    ]  # fmt: skip
    for name in gcn.__all__:
        assert getattr(gcn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'synthesize'"):
        gcn.synthesize  # noqa: B018
    public = {name for name in vars(gcn.Model) if not name.startswith("_")}
    assert public == {
        "auto_encode", "by_level", "complete", "config", "denoise", "describe", "device", "energy",
        "expect", "filters", "gradable", "grade", "history", "judge", "maps", "reconstruct",
        "repair", "run", "samples", "save", "score", "size", "split", "steps", "summary",
        "synthesize", "unusual", "yardstick",
    }  # fmt: skip


def test_importing_is_quick_and_loads_no_torch() -> None:
    script = (
        "import sys, gcn_cli; assert 'torch' not in sys.modules; "
        "gcn_cli.train; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_a_model_trained_in_memory_can_be_saved_and_loaded(
    model: gcn.Model, tmp_path: Path
) -> None:
    assert model.complete
    assert model.path is None
    assert len(model.history) == 4
    model.save(tmp_path / "m.safetensors")
    again = gcn.load(tmp_path / "m.safetensors", **MACHINE)
    ours, theirs = (one.synthesize(steps=2, kind="torch")[0] for one in (model, again))
    assert isinstance(ours, torch.Tensor)
    assert isinstance(theirs, torch.Tensor)
    assert torch.equal(ours, theirs)


def test_every_kind_of_picture_teaches_the_same(
    picture: Image.Image, model: gcn.Model, tmp_path: Path
) -> None:
    picture.save(tmp_path / "one.png")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for given in (tmp_path / "one.png", str(tmp_path), [array], tensor.float()):
        other = gcn.train(given, **MACHINE, **SMALL)
        assert other.history == model.history


def test_samples_come_as_the_kind_asked_for_in_the_size_asked_for(model: gcn.Model) -> None:
    (shown,) = model.synthesize(size=(24, 20), steps=2)
    (array,) = model.synthesize(size=(24, 20), steps=2, kind="numpy")
    (tensor,) = model.synthesize(size=(24, 20), steps=2, kind="torch")
    assert isinstance(shown, Image.Image)
    assert shown.size == (24, 20)
    assert isinstance(array, np.ndarray)
    assert array.shape == (20, 24, 3)
    assert array.dtype == np.uint8
    assert np.array_equal(array, np.asarray(shown))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == (3, 20, 24)
    with pytest.raises(gcn.InputError, match="kind jpeg"):
        model.synthesize(size=(24, 20), steps=1, kind="jpeg")  # type: ignore[call-overload]


def test_picture_k_is_the_same_whatever_the_count(model: gcn.Model) -> None:
    alone, several = (model.synthesize(count=n, steps=2, kind="numpy") for n in (1, 3))
    assert np.array_equal(alone[0], several[0])
    assert not np.array_equal(several[1], several[0])


def test_the_kind_that_goes_in_comes_out(picture: Image.Image, model: gcn.Model) -> None:
    array = np.asarray(picture)
    assert isinstance(model.reconstruct(picture), Image.Image)
    assert isinstance(model.reconstruct(array), np.ndarray)
    assert isinstance(
        model.reconstruct(torch.from_numpy(array.copy()).permute(2, 0, 1)), torch.Tensor
    )


def test_energy_is_the_reference_minus_the_score(picture: Image.Image, model: gcn.Model) -> None:
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float()
    x = model.checkpoint.pixels.to_model(pixels)
    sigma = 0.5**2 + 1
    expected = float(x.square().sum()) / (2 * sigma) - model.score(picture, level=0.5)
    assert model.energy(picture, level=0.5) == pytest.approx(expected, rel=1e-5)


def test_calls_are_reported_and_can_stop_a_training(picture: Image.Image, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    stopped = gcn.train(
        picture, output=tmp_path / "run", on_step=lambda k, last, _: seen.append((k, last)),
        should_stop=lambda: len(seen) == 2, **MACHINE, **SMALL,
    )  # fmt: skip
    assert seen == [(1, 4), (2, 4)]
    assert not stopped.complete
    whole = gcn.train(picture, output=tmp_path / "run", **MACHINE, **SMALL)
    assert whole.history == gcn.train(picture, **MACHINE, **SMALL).history
    evaluated: list[tuple[int, int]] = []
    whole.synthesize(count=2, steps=2, on_step=lambda k, last: evaluated.append((k, last)))
    assert evaluated == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_is_printed_and_no_signal_is_caught(
    picture: Image.Image, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    handlers = list(logging.getLogger("gcn_cli").handlers)
    caught = []
    gcn.train(
        picture, on_step=lambda *_: caught.append(signal.getsignal(signal.SIGTERM)),
        **MACHINE, **SMALL,
    ).synthesize(steps=1)  # fmt: skip
    assert set(caught) == {before}
    assert logging.getLogger("gcn_cli").handlers == handlers
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iteration": 3}, "unknown key iteration"),
        ({"iterations": "many"}, "--iterations many"),
        ({"sigma": 2.0}, "--sigma: means nothing"),
        ({"preset": "grand"}, "preset grand"),
        ({"device": "abacus"}, "--device abacus"),
    ],
)
def test_bad_settings_are_input_errors(
    settings: dict[str, Any], words: str, picture: Image.Image
) -> None:
    with pytest.raises(gcn.InputError, match=words):
        gcn.train(picture, **settings)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4, 4)), np.zeros(3), torch.zeros(2, 8, 8), torch.zeros(3, 0, 8), [],
     torch.full((3, 8, 8), float("nan"))],
)  # fmt: skip
def test_what_is_no_picture_is_refused(bad: Any) -> None:
    with pytest.raises(gcn.InputError, match="picture"):
        gcn.train(bad, **MACHINE, **SMALL)


def test_the_example_of_the_documents_runs(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "reading.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    picture.save("texture.png")
    shorter = ', layers="8@5,8@3/2", crop=16, margin=2, iterations=2)'
    example = example.replace('output="runs/texture")', 'output="runs/texture"' + shorter)
    assert shorter in example
    exec(compile(example, "docs/reading.md", "exec"), {})
    with Image.open("wide.png") as wide:
        assert wide.size == (512, 256)
