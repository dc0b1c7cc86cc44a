"""gcn synthesize: sizes, seeds, start images, guidance, quality, blocks, and refused options."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gcn_cli import images
from gcn_cli.cli import train
from gcn_cli.errors import InterruptedRunError
from gcn_cli.images import SourceFile, read_image, read_record
from tests.cli.running import TEXTURE, gcn
from tests.reading import read, values_of

pytestmark = pytest.mark.slow

SMALL = [
    "--set", "layers=8@5,8@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "10",
    "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip
FEW = ["--threads", "1", "--steps", "4", "--precision", "float32"]
ROCK = Path(__file__).parent.parent.parent / "examples/textures/volcanic_rock.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of a texture, a dark, a light and a gray one, and a published one; read only."""
    place = tmp_path_factory.mktemp("synthesize")
    Image.effect_noise((40, 32), 60).convert("RGB").save(place / "texture.png")
    noise = Image.effect_noise((32, 32), 40)
    for name, offset in (("dark", -60), ("light", 60)):
        noise.point(lambda v, offset=offset: v + offset).convert("RGB").save(place / f"{name}.png")
    noise.save(place / "gray.png")
    mask = Image.new("L", (64, 32))
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 31), fill=255)
    mask.save(place / "mask.png")
    for name in ("dark", "light", "gray", "texture"):
        done = gcn("train", f"{name}.png", *SMALL, cwd=place)
        assert done.returncode == 0, done.stderr.decode()
    published = [
        "--set",
        "learner=cd",
        "--set",
        "layers=2@3",
        "--resize",
        "16",
        "--iterations",
        "1",
    ]
    assert gcn("train", "dark.png", *published, "-o", "paper", cwd=place).returncode == 0
    return place


def synthesize(folder: Path, *arguments: str, model: str = "runs/texture") -> bytes:
    """Output of the command, which succeeds."""
    done = gcn("synthesize", "--model", model, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ([], (40, 32)),
        (["--size", "64x32"], (64, 32)),
        (["--size", "35x21"], (35, 21)),
        (["--size", "36x22", "--seamless", "x"], (36, 22)),
        (["--seamless", "off"], (40, 32)),
        (["--start", "texture.png", "--noise-level", "0.5"], (40, 32)),
        (["--set", "padding_mode=reflect", "--precision", "bf16"], (40, 32)),
    ],
)
def test_samples_of_any_size(arguments: list[str], size: tuple[int, int], folder: Path) -> None:
    synthesize(folder, "--steps", "4", *arguments, "-o", "out.png", "--overwrite")
    with Image.open(folder / "out.png") as image:
        assert image.size == size


def test_an_image_with_hardly_any_noise_is_kept(folder: Path) -> None:
    arguments = ["--start", "texture.png", "--noise-level", "0.03", "--steps", "1"]
    synthesize(folder, *arguments, "-o", "same.png")
    ours, theirs = (read(str(folder / name)) for name in ("same.png", "texture.png"))
    assert float((ours - theirs).abs().mean()) < 0.1 * float(theirs.std())


def test_several_samples_from_one_image_on_stdin(folder: Path) -> None:
    arguments = ["--start", "-", "--count", "2", "--steps", "2", "--json", "-o", "both"]
    image = (folder / "texture.png").read_bytes()
    done = gcn("synthesize", "--model", "runs/texture", *arguments, cwd=folder, stdin=image)
    assert done.returncode == 0, done.stderr.decode()
    records = json.loads(done.stdout)["files"]
    assert [(record["width"], record["height"]) for record in records] == [(40, 32)] * 2
    assert [record["index"] for record in records] == [0, 1]
    assert (folder / "both" / "texture-0-1.png").exists()


def test_several_seeds_have_names_of_their_own_and_a_sheet(folder: Path) -> None:
    few = ["--steps", "2", "--size", "24x20"]
    names = ["-o", "out/{model}-{size}-{seed}-{index}.webp", "--sheet", "out/sheet.png"]
    records = json.loads(synthesize(folder, "--seed", "5,1-2", *few, *names, "--json"))["files"]
    assert [r["path"] for r in records] == [f"out/texture-24x20-{k}-0.webp" for k in (5, 1, 2)]
    assert [record["seed"] for record in records] == [5, 1, 2]
    assert all(record["seam_x"] > 0 for record in records)
    with Image.open(folder / "out" / "sheet.png") as sheet:
        assert sheet.size == (24 * 2 + 2, 20 * 2 + 2)
    synthesize(folder, "--seed", "1", *few, "-o", "single.png", "--sheet", "four.png")
    single, four = (read(str(folder / name)) for name in ("single.png", "four.png"))
    assert torch.equal(four, single.repeat(1, 2, 2))
    in_sheet = read(str(folder / "out" / "sheet.png"))
    assert torch.equal(in_sheet[:, :20, 26:], single)


def test_a_tile_set_and_a_picture_of_it_laid_at_random(folder: Path) -> None:
    few = ["--steps", "2", "--size", "32x40", "--border", "4", "--seed", "3"]
    output = ["-o", "tiles", "--sheet", "tiles/laid.png", "--json"]
    records = json.loads(synthesize(folder, "--variants", "3", *few, *output))["files"]
    assert [record["index"] for record in records] == [0, 1, 2]
    one, other = (read(str(folder / record["path"])) for record in records[1:])
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.equal(one, other)
    laid = read(str(folder / "tiles/laid.png"))
    assert laid.shape == (3, 4 * 40, 6 * 32)
    assert torch.equal(laid[:, :4].view(3, 4, 6, 32), one[:, :4, None].expand(3, 4, 6, 32))
    plain = ["synthesize", "--model", "runs/texture", "--count", "2", "-o", "tiles"]
    done = gcn(*plain, *few[:4], *few[6:], "--skip-existing", cwd=folder)
    assert done.returncode == 2
    assert b"was made with other border" in done.stderr


def test_a_wang_set_tells_its_edges(folder: Path) -> None:
    few = ["--steps", "1", "--size", "48", "--border", "3", "--edges", "2", "-o", "wang"]
    records = json.loads(synthesize(folder, *few, "--json"))["files"]
    assert len(records) == 16
    assert records[6]["edges"] == {"top": 0, "right": 1, "bottom": 1, "left": 0}
    record = read_record(folder / records[6]["path"])
    assert record is not None
    assert record["edges"] == records[6]["edges"]


def sample(folder: Path, name: str, *arguments: str, model: str = "runs/dark") -> Tensor:
    size = ["--size", "64x32", "--seed", "0"]
    synthesize(folder, *size, "-o", name, *FEW, *arguments, model=model)
    return read(str(folder / name))


def test_two_models_in_one_image(folder: Path) -> None:
    both = sample(folder, "both.png", "--blend", "runs/light", "--mask", "mask.png")
    dark, light = (
        sample(folder, f"{name}-1.png", model=f"runs/{name}") for name in ("dark", "light")
    )
    assert float(both[:, :, 8:20].mean()) == pytest.approx(float(dark.mean()), abs=12)
    assert float(both[:, :, 44:56].mean()) == pytest.approx(float(light.mean()), abs=12)


def test_guide_temperature_and_restarts_change_the_sample(folder: Path) -> None:
    plain = sample(folder, "plain.png")
    assert torch.equal(plain, sample(folder, "1.png", "--temperature", "1", "--restarts", "0"))
    assert float(sample(folder, "calm.png", "--temperature", "0.3").std()) < 0.9 * float(
        plain.std()
    )
    restarted = sample(folder, "2.png", "--steps", "30", "--restarts", "2")
    assert not torch.equal(restarted, sample(folder, "30.png", "--steps", "30"))
    change = sample(folder, "guided.png", "--guide", "mask.png") - plain
    assert float(change[:, :, 36:60].mean()) > float(change[:, :, 4:28].mean()) + 5


def test_blocks_give_the_same_image(folder: Path) -> None:
    samples = []
    for tile in ("off", "16", "20"):
        arguments = ["--size", "45x37", "--seed", "3", "--tile", tile, "-o", f"tile-{tile}.png"]
        synthesize(folder, *arguments, *FEW)
        samples.append(read_image(str(folder / f"tile-{tile}.png")).pixels)
    for other in samples[1:]:
        torch.testing.assert_close(other, samples[0], rtol=0, atol=1)


def test_published_models_take_expert_settings(folder: Path) -> None:
    for name, settings in (
        ("plain", []),
        ("step", ["step_size=1.5"]),
        ("mode", ["noise=false"]),
        ("ring", ["padding_mode=circular"]),
    ):
        words = [word for setting in settings for word in ("--set", setting)]
        arguments = ["--steps", "30", "--seed", "0", *words]
        synthesize(folder, *arguments, "-o", f"paper-{name}.png", model="paper")
    plain, step, mode = (
        read(str(folder / f"paper-{name}.png")) for name in ("plain", "step", "mode")
    )
    assert float(step.std()) > float(plain.std()) > float(mode.std())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "step_size=0.3"], "step_size: only for published models"),
        (["--set", "noise=false"], "noise: only for published models"),
        (["--set", "noise=no"], "--set noise=no: must be true or false"),
        (["--set", "padding_mode=ring"], "--set padding_mode=ring: must be one of valid"),
        (["--set", "crop=16"], "--set crop=16: unknown key; must be one of step_size, noise"),
        (["--start", "chains"], "--start chains: only for published models"),
        (["--noise-level", "1"], "--noise-level: needs --start IMAGE"),
        (["--start", "texture.png", "--noise-level", "nan"], "--noise-level nan: must be more"),
        (["--start", "texture.png", "--noise-level", "inf"], "--noise-level inf: must be finite"),
        (["--map", "texture.png"], "--map: needs --start IMAGE"),
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--temperature", "0"], "--temperature 0.0: must be more than 0"),
        (["--temperature", "nan"], "--temperature nan"),
        (["--temperature", "1e30"], "--temperature 1e+30: must be 100 or less"),
        (["--seamless", "x", "--set", "padding_mode=reflect"], "--seamless: needs circular"),
        (["--size", "1000000"], "GiB for the image"),
        (["--size", "1000000000000"], "GiB for the image"),
        (["--size", "70000x4", "-o", "wide.jpg"], "wide.jpg: 70000x4 pixels, the format"),
        (["--tile", "0"], "'0' is not auto, off or a number of pixels"),
        (["--tile", "16", "--set", "padding_mode=reflect"], "--tile 16: this model or padding"),
        (["--threads", "100000"], "'100000' is not a number"),
        (["--seed", "3-1"], "'3-1' is not seeds"),
        (["--seed", "1,2", "-o", "one.png"], "one file for 2 "),
        (["--count", "2", "-o", "{seed}.png"], "add {seed}{index}"),
        (["-o", "{sead}.png"], "a template knows {seed}, {index}"),
        (["-o", "{seed}.doc"], "unknown image format"),
        (["-o", "{seed.real}.png"], "a template knows {seed}, {index}"),
        (["-o", "{seed:>2000000000}.png"], "and numbers with zeros, as {seed:03}"),
        (["--count", "1000000000", "-o", "many"], "one command makes 1000000 at most"),
        (["--steps", "99999999999999999999"], "must be 100000 or less"),
        (["--start", "texture.png", "--noise-level", "1e30"], "--noise-level 1e+30: must be 100"),
        (["--sheet", "./no.png"], "--sheet ./no.png: is the name of an image; name another"),
        (["--sheet", "-"], "--sheet -: stdout has the paths of the images; name a file"),
        (["--sheet", "sheet.doc"], "sheet.doc: unknown image format"),
        (["--skip-existing", "-o", "-"], "--skip-existing: needs files, and no --sheet"),
        (["--json", "-o", "-"], "--json, -o -: both print to stdout"),
        (["--set", "exemplar=texture.png"], "--set exemplar: is for --best-of and --json"),
        (["--set", "exemplar=absent.png", "--json"], "absent.png: no such file"),
        (["-o", "x.psd"], "x.psd: unknown image format, or one that gcn does not write; use one"),
        (["-o", "{seed}.ico"], ".ico: unknown image format"),
        (["--sheet", "x.gif"], "x.gif: unknown image format"),
        (["-o", "x.pgm"], "x.pgm: the image has colors, this format holds grays"),
        (["--quality", "80"], "--quality 80: is for .jpg, .webp and .avif"),
        (["--quality", "0", "-o", "x.jpg"], "--quality 0: must be 1 or more"),
        (["--exemplar", "texture.png"], "--exemplar: is now --set exemplar=FILE"),
        (["--blend", "runs/light"], "--blend, --mask: give both"),
        (["--guide-strength", "0.5"], "--guide-strength: needs --guide"),
        (["--guide", "mask.png", "--guide-strength", "2"], "--guide-strength 2.0: must be 1 or"),
        (["--blend", "runs/gray", "--mask", "mask.png"], "they must be alike"),
        (["--blend", "paper", "--mask", "mask.png"], "a published model has no noise levels"),
        (["--guide", "absent.png"], "--guide absent.png: no such file"),
        (["--model", "paper", "--restarts", "1"], "--restarts: a published model has no noise"),
        (["--model", "paper", "--set", "step_size=1e30"], "must be 1000000.0 or less"),
        (["--model", "paper", "--guide", "mask.png"], "--guide, --blend: a published model has"),
        (["--border", "4"], "--border 4: needs --variants or --edges"),
        (["--variants", "2", "--count", "2"], "--count 2: --variants is the number of tiles"),
        (["--edges", "2", "--best-of", "2"], "--best-of 2: does not go with --variants"),
        (["--edges", "2", "--seamless", "off"], "--seamless off: does not go with --variants"),
        (["--model", "paper", "--seamless", "x"], "--seamless: only for noise-conditional"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    arguments: list[str], message: str, folder: Path
) -> None:
    output = [] if "-o" in arguments else ["-o", "no.png"]
    done = gcn("synthesize", "--model", "runs/dark", *output, *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.decode().split())
    assert b"Traceback" not in done.stderr
    assert not (folder / "no.png").exists()


@pytest.fixture(scope="module")
def rock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A texture that is large enough to measure quality, and its run."""
    place = tmp_path_factory.mktemp("quality")
    with Image.open(ROCK) as whole:
        whole.crop((0, 0, 96, 96)).save(place / "texture.png")
        whole.crop((0, 0, 48, 48)).save(place / "start.png")
    done = gcn("train", "texture.png", *TEXTURE, "-o", "run", "--json", cwd=place)
    assert done.returncode == 0, done.stderr.decode()
    assert b"quality: " in done.stderr
    quality = json.loads(done.stdout)["quality"]
    assert json.loads((place / "run" / "quality.json").read_text()) == {"iteration": 20, **quality}
    return place


def test_a_completed_training_keeps_its_quality_and_exemplar(rock: Path) -> None:
    with Image.open(rock / "run" / "exemplar.png") as kept:
        assert kept.size == (96, 96)
    saved = json.loads((rock / "run" / "quality.json").read_text())
    again = gcn("train", "texture.png", *TEXTURE, "-o", "run", "--json", cwd=rock)
    assert {"iteration": 20, **json.loads(again.stdout)["quality"]} == saved


def test_the_best_of_several_is_kept(rock: Path) -> None:
    arguments = ["--size", "96", "--json"]
    several = synthesize(rock, *arguments, "--count", "6", "-o", "all", model="run")
    best = json.loads(
        synthesize(rock, *arguments, "--count", "2", "--best-of", "3", "-o", "best", model="run")
    )
    records = json.loads(several)["files"]
    for place, record in enumerate(best["files"]):
        group = records[3 * place : 3 * place + 3]
        chosen = min(group, key=lambda other: other["quality"]["quality"])
        assert torch.equal(*(read(rock / one["path"]) for one in (record, chosen)))
        assert record["quality"] == chosen["quality"]
    assert best["quality"]["quality"] in [r["quality"]["quality"] for r in best["files"]]


def test_without_an_exemplar_there_is_no_best(rock: Path) -> None:
    (rock / "alone.safetensors").write_bytes((rock / "run" / "model.safetensors").read_bytes())
    arguments = ["synthesize", "--model", "alone.safetensors", "--size", "96", "--best-of", "2"]
    refused = gcn(*arguments, "-o", "x.png", cwd=rock)
    assert refused.returncode == 2
    assert b"quality: the run keeps no exemplar" in refused.stderr
    given = gcn(*arguments, "--set", "exemplar=texture.png", "-o", "x.png", cwd=rock)
    assert given.returncode == 0, given.stderr.decode()


def test_samples_too_small_to_measure_are_written(rock: Path) -> None:
    few = ["--steps", "2", "--json"]
    small = json.loads(
        synthesize(rock, *few, "--size", "48", "--count", "2", "-o", "small", model="run")
    )
    assert small["quality"] is None
    assert [record["quality"] for record in small["files"]] == [None, None]
    for record in small["files"]:
        with Image.open(rock / record["path"]) as image:
            assert image.size == (48, 48)
    large = json.loads(synthesize(rock, *few, "--size", "64", "-o", "large", model="run"))
    assert large["quality"]["quality"] > 0
    assert large["files"][0]["quality"] == large["quality"]


def test_the_best_of_samples_too_small_to_measure_is_refused(rock: Path) -> None:
    arguments = ["synthesize", "--model", "run", "--best-of", "3", "-o", "no.png"]
    rule = b"gcn: error: --best-of 3: samples of 48x96 pixels are too small to grade; give a --size"
    for more in ([], ["--dry-run"]):
        refused = gcn(*arguments, "--size", "48x96", *more, cwd=rock)
        assert refused.returncode == 2
        assert refused.stderr.startswith(rule)
        assert len(refused.stderr.splitlines()) == 1
    started = gcn(*arguments, "--steps", "2", "--start", "start.png", cwd=rock)
    assert started.returncode == 2
    assert b"--best-of 3: samples of 48x48 pixels are too small" in started.stderr
    assert not (rock / "no.png").exists()


def test_existing_files_are_skipped(folder: Path) -> None:
    arguments = ["--count", "3", *FEW, "-o", "three", "--skip-existing"]
    paths = synthesize(folder, *arguments).split()
    assert len(paths) == 3
    (folder / paths[1].decode()).unlink()
    done = gcn("synthesize", "--model", "runs/texture", *arguments, cwd=folder)
    assert done.stdout.split() == paths[1:2]
    assert b"2 of 3 images exist already" in done.stderr


def test_one_command_from_an_image_to_a_sample(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.open(folder / "texture.png").save(tmp_path / "wall.png")
    few = ["--steps", "2", "--size", "24", "-o", "tile.png"]
    refused = gcn("synthesize", "wall.png", *few, "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2
    assert b"wall.png: has no finished model yet; gcn train wall.png" in refused.stderr
    stopped = gcn("train", "wall.png", *SMALL, "--max-time", "0.001s", cwd=tmp_path)
    assert b"--max-time 0s: the training is not shortened" in stopped.stderr
    done = gcn("synthesize", "wall.png", *few, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"tile.png\n"), done.stderr.decode()
    said = done.stderr.decode()
    assert "no finished model of wall.png yet, training comes first" in said
    assert "resumed after iteration 1" in said
    model = SourceFile.of(tmp_path / "runs" / "wall" / "model.safetensors")
    for source in ("wall.png", "wall", "runs/wall"):
        again = gcn("synthesize", source, "--steps", "2", "--sheet", f"{source}.webp", cwd=tmp_path)
        printed = again.stdout.decode().splitlines()
        assert printed[0].startswith("runs/wall/samples/wall-")
        assert printed[1] == f"{source}.webp"
        assert "training" not in again.stderr.decode()
    assert SourceFile.of(tmp_path / "runs" / "wall" / "model.safetensors") == model
    Image.open(folder / "dark.png").save(tmp_path / "wall.png")
    other = gcn("synthesize", "wall.png", *few, cwd=tmp_path)
    assert other.returncode == 2
    assert b"wall.png: runs/wall has a model of another image" in other.stderr
    both = gcn("synthesize", "wall", "--model", "wall", cwd=tmp_path)
    assert b"wall, --model wall: give one of them" in both.stderr
    (tmp_path / "new.png").write_bytes((tmp_path / "wall.png").read_bytes())

    def interrupted(*_: object, **__: object) -> None:
        raise InterruptedRunError("SIGTERM after iteration 3; saved; run the same command again")

    monkeypatch.setattr(train, "train_run", interrupted)
    cut = gcn("synthesize", "new.png", *few, "-o", "no.png", cwd=tmp_path)
    assert (cut.returncode, cut.stdout) == (75, b"")


def test_only_what_was_made_alike_is_skipped(folder: Path) -> None:
    arguments = ["--steps", "2", "--size", "24", "-o", "alike", "--skip-existing"]
    assert synthesize(folder, *arguments) == b"alike/texture-0-0.png\n"
    assert synthesize(folder, *arguments, "--seed", "0-2").splitlines() == [
        b"alike/texture-1-0.png",
        b"alike/texture-2-0.png",
    ]
    assert synthesize(folder, *arguments, model="runs/dark") == b"alike/dark-0-0.png\n"
    names = ["-o", "alike/texture-{index}-0.png"]
    for more, words in (
        (["--size", "25"], "is 24x24, not 25x25"),
        (["--steps", "3"], "was made with other steps"),
        ([*names, "--seed", "1"], "was made with seed 0, not 1"),
        ([*names, "--model", "runs/dark"], "was made by another model (texture)"),
    ):
        refused = gcn("synthesize", "--model", "runs/texture", *arguments, *more, cwd=folder)
        assert refused.returncode == 2
        assert f"alike/texture-0-0.png: {words}" in refused.stderr.decode()
        assert b"add --overwrite to replace it" in refused.stderr
    update = [*arguments, "--overwrite", "--seed", "0-2"]
    assert synthesize(folder, *update) == b""
    images.write(torch.zeros(3, 8, 8), str(folder / "alike" / "texture-1-0.png"))
    assert synthesize(folder, *update) == b"alike/texture-1-0.png\n"


def test_every_call_makes_a_new_image_unless_a_seed_is_given(folder: Path) -> None:
    few = ["--steps", "2", "--size", "24", "-o", "new"]
    assert synthesize(folder, *few, "--count", "2").split() == [
        b"new/texture-0-0.png", b"new/texture-0-1.png",
    ]  # fmt: skip
    second = gcn("synthesize", "--model", "runs/texture", *few, cwd=folder)
    assert second.stdout == b"new/texture-1-0.png\n"
    assert b"seed 1, the next in new" in second.stderr
    synthesize(folder, *few[:-1], "new/third.webp")
    record = read_record(folder / "new" / "third.webp")
    assert record is not None
    assert record["seed"] == 2
    synthesize(folder, *few[:-1], "new/again.png", "--seed", "1")
    assert values_of(folder / "new" / "again.png") == values_of(folder / "new" / "texture-1-0.png")
    refused = gcn("synthesize", "--model", "runs/texture", *few, "--seed", "1", cwd=folder)
    assert refused.returncode == 2
    assert b"new/texture-1-0.png: exists; add --overwrite" in refused.stderr


def test_a_sample_holds_how_it_was_made_and_no_folder(folder: Path) -> None:
    output = folder / "private" / "tile.png"
    arguments = ["--seed", "7", "--size", "24x20", "--steps", "2", "--guide", "mask.png"]
    arguments += ["--sheet", str(output.with_name("sheet.png")), "-o", str(output)]
    done = gcn("synthesize", "--model", str(folder / "runs" / "texture"), *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    record, sheet = (read_record(output.with_name(name)) for name in ("tile.png", "sheet.png"))
    assert record is not None
    assert record["command"] == (
        "gcn synthesize --model texture --seed 7 --output tile.png --sheet sheet.png --size 24x20 "
        "--steps 2 --guide mask.png"
    )
    about = {
        name: record[name] for name in ("model", "seed", "index", "width", "height", "options")
    }
    assert about == {
        "model": "texture", "seed": 7, "index": 0, "width": 24, "height": 20,
        "options": {"steps": 2, "guide": "mask.png"},
    }  # fmt: skip
    model = SourceFile.of(folder / "runs" / "texture" / "model.safetensors")
    assert record["model_sha256"] == model.sha256
    assert record["sources"] == [SourceFile.of(folder / "texture.png")._asdict()]
    assert record["inputs"] == [SourceFile.of(folder / "mask.png")._asdict()]
    assert record["software"].startswith("gcn ")
    assert sheet is not None
    assert (sheet["width"], sheet["model_sha256"]) == (48, model.sha256)
    assert str(folder).encode() not in output.read_bytes()
    printed = gcn("inspect", str(output), cwd=folder).stdout.decode()
    assert "command: gcn synthesize --model texture --seed 7" in printed
    assert f"sources: name texture.png, sha256 {record['sources'][0]['sha256']}" in printed
    as_json = json.loads(gcn("inspect", str(output), "--json", cwd=folder).stdout)
    assert as_json["record"] == record


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    arguments = ["--count", "2", "--size", "48x40", *FEW, "-o", "dry", "--dry-run", "--json"]
    facts = json.loads(synthesize(folder, *arguments))
    assert facts["paths"] == ["dry/texture-0-0.png", "dry/texture-0-1.png"]
    assert (facts["width"], facts["height"], facts["evaluations"]) == (48, 40, 4)
    assert not (folder / "dry").exists()


def test_images_of_several_runs_by_one_command(folder: Path, tmp_path: Path) -> None:
    """The same images as by a command for each."""
    runs = [str(folder / "runs" / name) for name in ("dark", "light")]
    common = (*FEW, "--seed", "3", "--size", "32", "--json")
    together = gcn("synthesize", *runs, *common, "-o", str(tmp_path / "all"), cwd=folder)
    both = json.loads(together.stdout)
    paths = [file["path"] for run in both["runs"] for file in run["files"]]
    assert paths == [str(tmp_path / "all" / f"{name}-3-0.png") for name in ("dark", "light")]
    gcn("synthesize", runs[1], *common, "-o", str(tmp_path / "one.png"), cwd=folder)
    assert torch.equal(read(Path(paths[1])), read(tmp_path / "one.png"))
    refused = gcn("synthesize", runs[0], "absent", *common, "-o", str(tmp_path / "x"), cwd=folder)
    assert refused.returncode == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "x.png"), b"--output x.png: one file for 2 runs"),
        (("-o", "-"), b"--output -: one file for 2 runs"),
        (("--sheet", "s.png"), b"--sheet s.png: shows the images of one run"),
    ],
)
def test_what_is_of_one_run_is_refused_for_several(
    words: tuple[str, ...], message: bytes, tmp_path: Path
) -> None:
    done = gcn("synthesize", "a", "b", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
