"""Model files: whole, and refused when they are not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gcn_cli
from gcn_cli import checkpoint
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import PublishedConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import build_kind
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.layers import LayerSpec
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.runs import session as training
from tests.reading import read


def sample(head: bool = False) -> Checkpoint:
    layers = (LayerSpec(4, 5, 2, 1), LayerSpec(3, 3))
    family = build_kind(PublishedConfig(layers=layers, head=head, seed=7), (16, 16))
    assert isinstance(family.net, GenerativeConvNet)
    family.net.initialize(0.1, torch.Generator().manual_seed(0))
    return Checkpoint(
        family=family,
        pixels=Normalization((1.0, 2.0, 3.0), (1.0,) * 3),
        image_size=(16, 16),
        iteration=2,
        total_iterations=9,
        seconds=1.5,
        data_digest="abc",
        history=[{"iteration": 1.0, "gap": 0.1}, {"iteration": 2.0, "gap": 0.3}],
        learner_state={"stage": torch.tensor(1), "noise": torch.arange(9, dtype=torch.uint8)},
    )


@pytest.mark.parametrize("head", [False, True])
def test_everything_comes_back(head: bool, tmp_path: Path) -> None:
    before = sample(head)
    checkpoint.save(tmp_path / "m.safetensors", before)
    after = checkpoint.load(tmp_path / "m.safetensors")
    for name in ("config", "pixels", "image_size", "iteration", "seconds", "history"):
        assert getattr(after, name) == getattr(before, name), name
    nets = after.family.net, before.family.net
    for ours, theirs in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(ours, theirs)
    for name, tensor in before.learner_state.items():
        assert torch.equal(after.learner_state[name], tensor)


def test_bad_files_are_one_clear_line(tmp_path: Path) -> None:
    absent = tmp_path / "absent.safetensors"
    with pytest.raises(InputError, match="no such model file"):
        checkpoint.load(absent)

    path = tmp_path / "m.safetensors"
    checkpoint.save(path, sample())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a gcn model file"):
        checkpoint.load(path)

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a gcn model file"):
        checkpoint.load(path)

    save_file({"x": torch.zeros(1)}, path, metadata={"gcn": json.dumps({"format": 99})})
    with pytest.raises(InputError, match="format 99"):
        checkpoint.load(path)

    save_file(
        {"x": torch.zeros(1)}, path, metadata={"gcn": json.dumps({"format": checkpoint.FORMAT})}
    )
    with pytest.raises(InputError, match="incomplete"):
        checkpoint.load(path)


def test_a_file_of_format_7_has_no_mean_of_aligned_pictures(tmp_path: Path) -> None:
    """It loads as what it was, about 0, and its training goes on."""
    generator = torch.Generator().manual_seed(0)
    pictures = [255 * torch.rand(3, 16, 16, generator=generator) for _ in range(3)]
    settings: dict[str, Any] = {
        "preset": "object", "layers": "4@3", "batch_size": 2, "iterations": 4, "device": "cpu"
    }  # fmt: skip
    gcn_cli.train(pictures, output=tmp_path, should_stop=lambda: True, **settings)
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["gcn"]) | {"format": 7}
        kept = {
            name: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if not name.endswith("spectrum.middle")
        }
        assert len(kept) == len(list(file.keys())) - 2
    save_file(kept, path, metadata={"gcn": json.dumps(description)})
    net = checkpoint.load(path).family.net
    assert float(net.state_dict()["spectrum.middle"].abs().max()) == 0
    assert gcn_cli.train(pictures, output=tmp_path, **settings).complete


@pytest.mark.parametrize("version", [9, 10])
def test_older_files_of_several_ladders_are_sampled_but_not_gone_on_with(
    tmp_path: Path, version: int
) -> None:
    """In format 9 coarser ladders had all layers; in 10 the option had another name."""
    generator = torch.Generator().manual_seed(0)
    picture = 255 * torch.rand(3, 64, 64, generator=generator)
    settings: dict[str, Any] = {
        "layers": "4@3," * 6 + "4@3", "crop": 32, "margin": 2, "octaves": 2, "batch_size": 2,
        "iterations": 2, "device": "cpu", "precision": "float32", "octave_layers": 7,
    }  # fmt: skip
    gcn_cli.train(picture, output=tmp_path, **settings)
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["gcn"]) | {"format": version}
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for written in (description["config"], description["asked"]):
        layers = written.pop("octave_layers")
        if version == 10:
            written["coarser_layers"] = layers
    save_file(kept, path, metadata={"gcn": json.dumps(description)})
    loaded = checkpoint.load(path).family.net
    assert isinstance(loaded, NoiseConditionalNet)
    assert [len(net.layers) for net in loaded.octaves()] == [7, 7]
    with pytest.raises(InputError, match="other batches, in an older gcn; use --overwrite"):
        gcn_cli.train(picture, output=tmp_path, **settings)
    assert gcn_cli.train(picture, output=tmp_path, overwrite=True, **settings).complete


OLD = Path(__file__).parent.parent / "data" / "format4"


@pytest.mark.parametrize("name", ["ladder", "paper"])
def test_a_file_of_format_4_loads_and_samples_as_it_did(name: str) -> None:
    """The pictures were written by the release that wrote the files."""
    model = gcn_cli.load(OLD / f"{name}.safetensors", device="cpu", precision="float32")
    (picture,) = model.synthesize(size=(24, 24), steps=3, kind="torch")
    theirs = read(str(OLD / f"{name}.png"), bands="L")
    assert isinstance(picture, torch.Tensor)
    assert float((picture.round().clamp(0, 255) - theirs).abs().max()) <= 1


def test_a_run_of_format_4_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its crop had been cut down before it was compared with what is asked for now.

    Samples did not follow the pattern of the pictures then.
    """
    monkeypatch.setattr(training, "find_pattern", lambda _: None)
    shutil.copy(OLD / "ladder.safetensors", tmp_path / "model.safetensors")
    model = gcn_cli.train(
        OLD / "checks.png", output=tmp_path, channels=1, layers="4@5,4@3/2", crop=128, margin=2,
        iterations=12, batch_size=2, device="cpu", precision="float32",
    )  # fmt: skip
    assert model.complete
    (picture,) = model.synthesize(size=(24, 24), steps=3, kind="torch")
    theirs = read(str(OLD / "ladder-whole.png"), bands="L")
    assert isinstance(picture, torch.Tensor)
    assert float((picture.round().clamp(0, 255) - theirs).abs().max()) <= 1
