"""Trainings in threads of one process, as --each runs them on a GPU; here on a CPU."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from gcn_cli import images, runtime
from gcn_cli.cli import each
from gcn_cli.cli.app import cli
from gcn_cli.cli.console import show_messages
from gcn_cli.cli.each import Outcome, ThreadPool
from gcn_cli.cli.train import train_one
from gcn_cli.errors import InterruptedRunError
from gcn_cli.model import load
from gcn_cli.options import TrainOptions
from gcn_cli.signals import StopRequest
from tests.cli.running import gcn, restored_logging
from tests.small import SMALL_TEXTURE, small_image

CPU = torch.device("cpu")


def options(iterations: int = 3) -> TrainOptions:
    return TrainOptions.from_keywords({**SMALL_TEXTURE, "iterations": iterations})


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Two images, and between them a file that is none."""
    names = ["a", "broken", "b"]
    for index, name in enumerate(names):
        images.write(small_image().roll(5 * index, -1), str(tmp_path / f"{name}.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    return [str(tmp_path / f"{name}.png") for name in names]


def outcomes_of(sources: list[str], root: Path) -> list[Outcome]:
    return [Outcome(source, str(root / Path(source).stem)) for source in sources]


def test_models_of_threads_are_those_of_trainings_alone(
    sources: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = outcomes_of(sources, tmp_path / "runs")
    with restored_logging():
        show_messages()
        ThreadPool(train_one, options(), 2, CPU).run(outcomes)
    assert [outcome.exit_code for outcome in outcomes] == [0, 2, 0]
    assert "broken.png" in outcomes[1].message
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert {line.split(":")[0] for line in lines} == {"a", "b", "broken"}
    for outcome in (outcomes[0], outcomes[2]):
        alone = tmp_path / "alone" / Path(outcome.run).name
        (single,) = outcomes_of([outcome.image], tmp_path / "alone")
        ThreadPool(train_one, options(), 1, CPU).run([single])
        ours, theirs = (load(run, device="cpu").checkpoint for run in (outcome.run, alone))
        for name, tensor in ours.kind.net.state_dict().items():
            assert torch.equal(tensor, theirs.kind.net.state_dict()[name]), name


def test_after_a_signal_trainings_save_and_no_more_start(
    sources: list[str], tmp_path: Path
) -> None:
    def interrupted(image: str, options: TrainOptions, stop: StopRequest) -> None:
        signal.raise_signal(signal.SIGTERM)
        train_one(image, options, stop)

    outcomes = outcomes_of([sources[0], sources[2]], tmp_path / "runs")
    pool = ThreadPool(interrupted, options(1000), 1, CPU)
    pool.run(outcomes)
    assert pool.stopped_by is signal.SIGTERM
    assert [outcome.exit_code for outcome in outcomes] == [InterruptedRunError.exit_code, None]
    assert all(outcome.unfinished for outcome in outcomes)
    assert 0 < load(outcomes[0].run, device="cpu").checkpoint.iteration < 1000


def test_a_training_that_time_ended_is_not_measured(sources: list[str], tmp_path: Path) -> None:
    images.write(small_image().repeat(1, 3, 3), sources[0])  # large enough to be measured
    short = replace(options(100_000), max_time=0.5, output=str(tmp_path / "run"))
    train_one(sources[0], short, StopRequest())
    assert not load(short.output, device="cpu").complete
    assert not (tmp_path / "run" / "quality.json").exists()


def test_threads_of_one_process_are_those_of_the_option(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(each, "one_gpu", lambda _: CPU)  # as on a machine with one GPU
    given: list[int | None] = []
    monkeypatch.setattr(runtime, "set_threads", given.append)
    words = [
        "train",
        "--each",
        sources[0],
        "--threads",
        "3",
        "--iterations",
        "1",
        "--device",
        "cpu",
    ]
    words += ["--set", "layers=4@5", "--set", "crop=16", "--set", "margin=2"]
    done = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert given == [3]


def test_the_maps_of_a_material_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(each.JobPool, "run", lambda *_: None)
    for words, told in ((("bark_albedo", "bark_normal"), True), (("bark", "moss"), False)):
        for word in words:
            images.write(small_image(), str(tmp_path / words[0] / f"{word}.png"))
        done = gcn("train", "--each", words[0], "--device", "cpu", cwd=tmp_path)
        message = b"bark_albedo.png and 1 more look like the maps of one material; without --each"
        assert (message in done.stderr) == told
