"""The public Python API: its names, the types of images, and what it never does."""

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
from gcn_cli.options import SampleOptions

SMALL: dict[str, Any] = {"layers": "8@5,8@3/2", "crop": 16, "margin": 2, "iterations": 4}
MACHINE: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.effect_noise((40, 32), 60).convert("RGB")


@pytest.fixture
def model(image: Image.Image) -> gcn.Model:
    return gcn.train(image, **MACHINE, **SMALL)


def test_the_public_names() -> None:
    assert gcn.__all__ == [
        "DivergedError", "GcnError", "InputError", "InterruptedRunError", "Model", "__version__",
        "compare", "load", "train",
    ]  # fmt: skip
    for name in gcn.__all__:
        assert getattr(gcn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'synthesize'"):
        gcn.synthesize  # noqa: B018
    public = {name for name in vars(gcn.Model) if not name.startswith("_")}
    assert public == {
        "anomaly_map", "at_level", "auto_encode", "complete", "config", "denoise", "denoiser",
        "describe", "device", "energy", "evaluations", "filters", "forecast",
        "has_texture_metrics", "history", "image_facts", "level_reports", "maps", "phases",
        "quality", "reconstruct", "repair", "run", "sample_size", "samples", "save", "score",
        "size", "split", "summary", "synthesize", "texture_metrics", "to_image", "to_model",
    }  # fmt: skip


@pytest.mark.slow
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
    loaded = gcn.load(tmp_path / "m.safetensors", **MACHINE)
    ours, theirs = (m.synthesize(steps=2, kind="torch")[0] for m in (model, loaded))
    assert isinstance(ours, torch.Tensor)
    assert isinstance(theirs, torch.Tensor)
    assert torch.equal(ours, theirs)


def test_every_type_of_image_trains_the_same_model(
    image: Image.Image, model: gcn.Model, tmp_path: Path
) -> None:
    image.save(tmp_path / "image.png")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for given in (tmp_path / "image.png", str(tmp_path), [array], tensor.float()):
        other = gcn.train(given, **MACHINE, **SMALL)
        assert other.history == model.history


def test_samples_have_the_requested_type_and_size(model: gcn.Model) -> None:
    (pillow,) = model.synthesize(size=(24, 20), steps=2)
    (array,) = model.synthesize(size=(24, 20), steps=2, kind="numpy")
    (tensor,) = model.synthesize(size=(24, 20), steps=2, kind="torch")
    assert isinstance(pillow, Image.Image)
    assert pillow.size == (24, 20)
    assert isinstance(array, np.ndarray)
    assert array.shape == (20, 24, 3)
    assert array.dtype == np.uint8
    assert np.array_equal(array, np.asarray(pillow))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == (3, 20, 24)
    with pytest.raises(gcn.InputError, match="kind jpeg"):
        model.synthesize(size=(24, 20), steps=1, kind="jpeg")  # type: ignore[arg-type]


def test_sample_k_does_not_depend_on_the_count(model: gcn.Model) -> None:
    alone, several = (model.synthesize(count=n, steps=2, kind="numpy") for n in (1, 3))
    assert np.array_equal(alone[0], several[0])
    assert not np.array_equal(several[1], several[0])


def test_results_have_the_type_of_the_image(image: Image.Image, model: gcn.Model) -> None:
    array = np.asarray(image)
    assert isinstance(model.reconstruct(image), Image.Image)
    assert isinstance(model.reconstruct(array), np.ndarray)
    assert isinstance(
        model.reconstruct(torch.from_numpy(array.copy()).permute(2, 0, 1)), torch.Tensor
    )


def test_energy_is_the_reference_minus_the_score(image: Image.Image, model: gcn.Model) -> None:
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    x = model.checkpoint.normalization.to_model(pixels)
    sigma = 0.5**2 + 1
    expected = float(x.square().sum()) / (2 * sigma) - model.score(image, noise_level=0.5)
    assert model.energy(image, noise_level=0.5) == pytest.approx(expected, rel=1e-5)


def test_callbacks_report_progress_and_can_stop_a_training(
    image: Image.Image, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    stopped = gcn.train(
        image, output=tmp_path / "run", on_step=lambda k, last, _: steps.append((k, last)),
        should_stop=lambda: len(steps) == 2, **MACHINE, **SMALL,
    )  # fmt: skip
    assert steps == [(1, 4), (2, 4)]
    assert not stopped.complete
    whole = gcn.train(image, output=tmp_path / "run", **MACHINE, **SMALL)
    assert whole.history == gcn.train(image, **MACHINE, **SMALL).history
    evaluated: list[tuple[int, int]] = []
    whole.synthesize(count=2, steps=2, on_step=lambda k, last: evaluated.append((k, last)))
    assert evaluated == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_is_printed_and_no_signal_is_caught(
    image: Image.Image, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    handlers = list(logging.getLogger("gcn_cli").handlers)
    caught = []
    gcn.train(
        image, on_step=lambda *_: caught.append(signal.getsignal(signal.SIGTERM)),
        **MACHINE, **SMALL,
    ).synthesize(steps=1)  # fmt: skip
    assert set(caught) == {before}
    assert logging.getLogger("gcn_cli").handlers == handlers
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iteration": 3}, "--set iteration: no such setting"),
        ({"iterations": "many"}, "--iterations many"),
        ({"sigma": 2.0}, "--set sigma: "),
        ({"preset": "grand"}, "preset grand"),
        ({"device": "abacus"}, "--device abacus"),
    ],
)
def test_bad_settings_are_input_errors(
    settings: dict[str, Any], words: str, image: Image.Image
) -> None:
    with pytest.raises(gcn.InputError, match=words):
        gcn.train(image, **settings)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4, 4)), np.zeros(3), torch.zeros(2, 8, 8), torch.zeros(3, 0, 8), [],
     torch.full((3, 8, 8), float("nan"))],
)  # fmt: skip
def test_invalid_images_are_refused(bad: Any) -> None:
    with pytest.raises(gcn.InputError, match="image"):
        gcn.train(bad, **MACHINE, **SMALL)


def test_the_example_of_the_documents_runs(
    image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "howto" / "python.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    image.save("texture.png")
    shorter = ', layers="8@5,8@3/2", crop=16, margin=2, iterations=2)'
    example = example.replace('output="runs/texture")', 'output="runs/texture"' + shorter)
    assert shorter in example
    exec(compile(example, "docs/howto/python.md", "exec"), {})
    with Image.open("wide.png") as wide:
        assert wide.size == (512, 256)


def test_unknown_options_are_input_errors(model: gcn.Model) -> None:
    with pytest.raises(gcn.InputError, match=r"sedd: unknown option; must be one of .*seed"):
        model.synthesize(sedd=3)
    with pytest.raises(gcn.InputError, match="lattice: unknown option"):
        next(model.repair(np.zeros((8, 8, 3), np.uint8), lattice="zeros"))
    with pytest.raises(gcn.InputError, match="padding_mode ring: must be one of valid"):
        model.synthesize(padding_mode="ring")


def test_options_are_fields_of_one_class(model: gcn.Model) -> None:
    options = SampleOptions(size=(24, 20), steps=3, seed=5)
    (ours,) = model.samples(options)
    (theirs,) = model.synthesize((24, 20), seed=5, steps=3, kind="torch")
    assert torch.equal(ours, theirs)
    (other,) = model.samples(options, seed=6)
    assert not torch.equal(ours, other)
    assert model.evaluations(options) == 3
    assert model.forecast(options, count=2)["evaluations"] == 3


def test_a_blend_is_a_model_or_a_path(model: gcn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    mask, options = np.zeros((20, 24), np.uint8), SampleOptions(size=(24, 20), steps=2)
    mask[:, 12:] = 255
    pair = [
        next(model.samples(options, blend=blend, mask=mask))
        for blend in (model, str(tmp_path / "m.safetensors"))
    ]
    assert torch.equal(pair[0], pair[1])
