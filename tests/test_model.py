"""The public Python API: its names, the types of images, and what it never does."""

import base64
import inspect
import io
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gcn_cli as gcn
from gcn_cli.interactive import as_arguments
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
        "BusyError", "DivergedError", "GcnError", "InputError", "InterruptedRunError",
        "LostProcessError", "Model", "__version__", "compare", "forecast", "load", "research",
        "train",
    ]  # fmt: skip
    assert dir(gcn) == gcn.__all__
    assert gcn.research.run_chain.__doc__
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
        "upscale",
    }  # fmt: skip


def test_documented_arguments_are_those_of_the_function() -> None:
    functions: list[Any] = [gcn.train, gcn.load, gcn.forecast, gcn.compare]
    functions += [method for method in vars(gcn.Model).values() if inspect.isfunction(method)]
    documented = 0
    for function in functions:
        _, found, listed = (inspect.getdoc(function) or "").partition("\nArgs:\n")
        if found:
            names = re.findall(r"^    (\w+): ", listed.partition("\n\n")[0], re.MULTILINE)
            assert names == [n for n in inspect.signature(function).parameters if n != "self"]
            documented += 1
    assert documented > 10


@pytest.mark.slow
def test_importing_is_quick_and_loads_no_torch() -> None:
    script = (
        "import sys, gcn_cli; assert 'torch' not in sys.modules; "
        "gcn_cli.train; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


@pytest.mark.slow
def test_training_loading_and_sampling_do_not_import_the_compiler_of_pytorch(
    tmp_path: Path,
) -> None:
    """It takes seconds of each command."""
    script = (
        "import sys, PIL.Image, gcn_cli as gcn\n"
        f"model = gcn.train(PIL.Image.effect_noise((40, 32), 60), **{MACHINE | SMALL})\n"
        f"model.save({str(tmp_path / 'm.safetensors')!r})\n"
        f"gcn.load({str(tmp_path / 'm.safetensors')!r}, **{MACHINE}).synthesize(steps=2)\n"
        "loaded = [m for m in sys.modules if m in ('torch._dynamo', 'torch._inductor', 'sympy')]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


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


def test_every_method_returns_the_kind_that_is_named(
    image: Image.Image, model: gcn.Model, tmp_path: Path
) -> None:
    image.save(tmp_path / "image.png")
    array = np.asarray(image)
    methods: list[Callable[..., Any]] = [
        lambda given, **kind: model.synthesize(steps=1, **kind)[0],
        lambda given, **kind: next(model.samples(steps=1, **kind)),
        model.reconstruct,
        lambda given, **kind: model.auto_encode(given, **kind)[0],
        lambda given, **kind: next(model.repair(given, make_seamless=4, steps=1, **kind)),
        lambda given, **kind: model.denoise(given, 3.0, **kind),
        lambda given, **kind: model.filters(**kind),
        lambda given, **kind: model.to_image(model.to_model(given), **kind),
    ]
    for method in methods:
        for given in (tmp_path / "image.png", array):
            assert isinstance(method(given), Image.Image)
            assert isinstance(method(given, kind="numpy"), np.ndarray)
            assert isinstance(method(given, kind="torch"), torch.Tensor)


def test_energy_is_the_reference_minus_the_score(image: Image.Image, model: gcn.Model) -> None:
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    x = model.checkpoint.normalization.to_model(pixels)
    sigma = 0.5**2 + 1
    expected = float(x.square().sum()) / (2 * sigma) - float(model.score(image, noise_level=0.5))
    assert float(model.energy(image, noise_level=0.5)) == pytest.approx(expected, rel=1e-5)


def test_energies_of_a_batch_are_those_of_its_images_and_differentiable(
    image: Image.Image, model: gcn.Model
) -> None:
    array = np.stack([np.asarray(image), np.asarray(image)[::-1]])
    alone = torch.stack([model.energy(one) for one in array])
    assert alone.shape == (2,)
    torch.testing.assert_close(model.energy(array), alone)
    batch = torch.from_numpy(array.copy()).permute(0, 3, 1, 2).float().requires_grad_()
    for function in (model.energy, model.score):
        values = function(batch, 0.5)
        assert values.shape == (2,)
        torch.testing.assert_close(values.detach(), function(array, 0.5), rtol=1e-5, atol=1e-2)
        (gradient,) = torch.autograd.grad(values.sum(), batch)
        direction = torch.randn_like(batch)
        moved = [function((batch + step * direction).detach(), 0.5) for step in (-0.5, 0.5)]
        expected, slope = float((moved[1] - moved[0]).sum()), float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=0.02)
    with pytest.raises(gcn.InputError, match="a batch without images"):
        model.energy(batch[:0])


@pytest.mark.parametrize("settings", [{"size": 24}, {"shrink": 24}])
def test_a_tensor_keeps_its_gradient_when_it_is_resized(
    settings: dict[str, Any], image: Image.Image
) -> None:
    kind = {"learner": "mle", "layers": "4@5/2+2", "crop": 0} if "size" in settings else SMALL
    model = gcn.train(image, device="cpu", **{**kind, **settings, "iterations": 1})
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    leaf = (pixels + 0.25).requires_grad_()
    energy = model.energy(leaf)
    (gradient,) = torch.autograd.grad(energy, leaf)
    assert gradient.shape == leaf.shape
    assert bool(gradient.abs().sum() > 0)
    torch.testing.assert_close(energy.detach(), model.energy(pixels + 0.25))


@pytest.mark.parametrize(
    "values", [np.random.default_rng(0).random((32, 40, 3)), torch.rand(3, 32, 40)]
)
def test_floats_in_0_to_1_are_refused(values: Any, model: gcn.Model) -> None:
    for function in (model.energy, model.reconstruct, gcn.train):
        with pytest.raises(gcn.InputError, match=r"values from .* is in 0\.\.255; multiply"):
            function(values)
    assert model.energy(np.zeros((32, 40, 3))).isfinite()  # a black image


def test_one_side_is_a_square(model: gcn.Model) -> None:
    assert model.synthesize(size=24, steps=1)[0].size == (24, 24)
    assert model.sample_size(SampleOptions(size="auto")) == (40, 32)  # type: ignore[arg-type]


def test_quality_takes_every_type_of_image_and_batches(tmp_path: Path) -> None:
    image = Image.effect_noise((72, 72), 60).convert("RGB")
    model = gcn.train(image, output=tmp_path / "run", **MACHINE, **SMALL)
    image.save(tmp_path / "sample.png")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = model.quality(tensor)
    assert expected["copied"] > 0
    for given in (
        tmp_path / "sample.png",
        image,
        array,
        array[None],
        tensor[None].float(),
        [array],
    ):
        assert model.quality(given) == pytest.approx(expected, nan_ok=True)
    with pytest.raises(gcn.InputError, match="images under 64 pixels a side are too small"):
        model.quality(array[:32])


def test_quality_measures_the_first_of_linked_maps(tmp_path: Path) -> None:
    colors, heights = (Image.effect_noise((72, 72), 60).convert(mode) for mode in ("RGB", "L"))
    model = gcn.train(colors, linked=(heights,), output=tmp_path / "run", **MACHINE, **SMALL)
    sample = model.synthesize(steps=1, kind="torch")[0]
    assert len(sample) == 4
    expected = pytest.approx(model.quality(sample[:3]), nan_ok=True)
    assert model.quality(sample) == expected
    assert model.quality(sample[None]) == expected
    assert "RGB + L" in repr(model)


def test_a_model_says_what_it_is(model: gcn.Model) -> None:
    assert repr(model).startswith(
        "<gcn model: in memory; RGB, 40x32; denoising and likelihood on crops of 16 pixels, "
        "4 iterations; "
    )
    page = model._repr_html_()
    assert page == model._repr_html_()
    encoded = re.findall(r'src="data:image/png;base64,([^"]*)"', page)[0]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        assert picture.size == (40, 32)
    assert '<td style="text-align:left">in memory</td>' in page


def test_a_published_model_shows_its_chains(image: Image.Image) -> None:
    model = gcn.train(image, learner="mle", size=24, layers="4@5/2+2", iterations=1, device="cpu")
    assert "stopped at" not in repr(model)
    assert "data:image/png" in model._repr_html_()


def test_progress_is_shown_where_it_is_asked_for(
    image: Image.Image, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[int] = []
    model = gcn.train(
        image, progress=True, on_step=lambda k, *_: steps.append(k), **MACHINE, **SMALL
    )
    assert steps == [1, 2, 3, 4]
    out, err = capfd.readouterr()
    assert "4/4" in err
    assert "loss=" in err
    model.synthesize(count=2, steps=2, progress=True)
    list(model.repair(image, make_seamless=4, steps=1, progress=True))
    out, err = capfd.readouterr()
    assert not out
    assert "synthesize: 100%" in err
    assert "4/4" in err
    assert "repair: 100%" in err


@pytest.mark.parametrize("source", ["signal", "callback"])
def test_an_interrupt_keeps_the_model_and_its_file(
    source: str, image: Image.Image, tmp_path: Path
) -> None:
    def interrupt(iteration: int, *_: object) -> None:
        if iteration == 2 and source == "signal":
            signal.raise_signal(signal.SIGINT)
        elif iteration == 2:
            raise KeyboardInterrupt

    model = gcn.train(image, output=tmp_path / "run", on_step=interrupt, **MACHINE, **SMALL)
    assert not model.complete
    assert len(model.history) == 2
    assert gcn.load(tmp_path / "run", **MACHINE).history == model.history
    whole = gcn.train(image, output=tmp_path / "run", **MACHINE, **SMALL)
    assert whole.history == gcn.train(image, **MACHINE, **SMALL).history
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_ends_the_training_at_once(
    image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcn_cli.signals.SAME_REQUEST_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        gcn.train(image, on_step=_interrupt_twice, **MACHINE, **SMALL)


def _interrupt_twice(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


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
        ({"iteration": 3}, "^iteration: no such setting"),
        ({"iterations": "many"}, "^iterations many"),
        ({"sigma": 2.0}, "^sigma: "),
        ({"preset": "grand"}, "^preset grand"),
        ({"device": "abacus"}, "^device abacus"),
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


def test_the_example_of_the_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "howto" / "python.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((80, 72), 60).convert("RGB").save("texture.png")
    shorter = ', layers="8@5,8@3/2", crop=16, margin=2, iterations=2)'
    example = example.replace(", progress=True)", shorter)
    assert shorter in example
    exec(compile(example, "docs/howto/python.md", "exec"), {})
    with Image.open("tile.png") as tile:
        assert tile.size == (512, 512)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--noise-level 0: more than 0", "noise_level 0: more than 0"),
        ("--set crop=9: see --set margin", "crop=9: see margin"),
        ("--map: rename one; or use -o (--output)", "linked: rename one; or use output (output)"),
        ("--no-flips: x", "flips=False: x"),
        ("pip install 'gcn-cli[deep]'; a/b-o, x--y", "pip install 'gcn-cli[deep]'; a/b-o, x--y"),
        ("--model runs/x: none", "run runs/x: none"),
    ],
)
def test_errors_name_arguments(message: str, expected: str) -> None:
    assert as_arguments(message) == expected


def test_an_error_also_has_the_words_of_the_command(model: gcn.Model) -> None:
    with pytest.raises(gcn.InputError, match=r"^noise_level -1: must be more than 0$") as caught:
        model.synthesize(noise_level=-1)
    assert caught.value.message == "--noise-level -1: must be more than 0"
    with pytest.raises(gcn.InputError, match=r"^guide_strength: needs guide$"):
        next(model.samples(guide_strength=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "big"}, 'size big: must be a side, as 512, (width, height), or "auto"'),
        ({"size": (24, 0)}, "size 24x0: must be 1x1 or more"),
        ({"size": (1, 2, 3)}, "size (1, 2, 3): must be a side"),
        ({"seed": "x"}, "seed x: must be a whole number"),
        ({"seed": -1}, "seed -1: must be 0 or more"),
        ({"steps": 2.5}, "steps 2.5: must be a whole number"),
        ({"temperature": "hot"}, "temperature hot: must be a number"),
        ({"noise": 1}, "noise 1: must be True or False"),
        ({"tile": "on"}, "tile on: must be one of a whole number, auto, off"),
        ({"seamless": "z"}, "seamless z: must be one of both, x, y, off"),
        ({"count": 0}, "count 0: must be 1 or more"),
    ],
)
def test_values_of_a_wrong_type_are_refused(
    options: dict[str, Any], words: str, model: gcn.Model
) -> None:
    with pytest.raises(gcn.InputError, match=f"^{re.escape(words)}"):
        model.synthesize(**options)


def test_an_unknown_precision_is_refused(
    image: Image.Image, model: gcn.Model, tmp_path: Path
) -> None:
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(gcn.InputError, match="precision half: must be one of"):
        gcn.train(image, precision="half", **SMALL)
    with pytest.raises(gcn.InputError, match="precision half: must be one of"):
        gcn.load(tmp_path / "m.safetensors", precision="half")


def test_unknown_options_are_input_errors(model: gcn.Model) -> None:
    with pytest.raises(gcn.InputError, match=r"sedd: unknown option; must be one of .*seed"):
        model.synthesize(sedd=3)
    with pytest.raises(gcn.InputError, match="lattice: unknown option"):
        next(model.repair(np.zeros((8, 8, 3), np.uint8), lattice="zeros"))
    with pytest.raises(gcn.InputError, match="padding_mode ring: must be one of valid"):
        model.synthesize(padding_mode="ring")


def test_options_are_fields_of_one_class(model: gcn.Model) -> None:
    options = SampleOptions(size=(24, 20), steps=3, seed=5)
    (ours,) = model.samples(options, kind="torch")
    (theirs,) = model.synthesize((24, 20), seed=5, steps=3, kind="torch")
    assert torch.equal(ours, theirs)
    (other,) = model.samples(options, seed=6, kind="torch")
    assert not torch.equal(ours, other)
    assert model.evaluations(options) == 3
    assert model.forecast(options, count=2)["evaluations"] == 3


def test_a_blend_is_a_model_or_a_path(model: gcn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    mask, options = np.zeros((20, 24), np.uint8), SampleOptions(size=(24, 20), steps=2)
    mask[:, 12:] = 255
    pair = [
        next(model.samples(options, blend=blend, mask=mask, kind="torch"))
        for blend in (model, str(tmp_path / "m.safetensors"))
    ]
    assert torch.equal(pair[0], pair[1])
