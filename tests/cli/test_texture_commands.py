"""The commands on the default model: training, resuming, sizes, repairs, aligned objects."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gcn_cli import images
from tests.cli.running import gcn
from tests.reading import read

SMALL = [
    "--set", "layers=8@5,8@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "20",
    "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one complete run; read only."""
    folder = tmp_path_factory.mktemp("texture")
    Image.effect_noise((40, 32), 60).convert("RGB").save(folder / "texture.png")
    done = gcn("train", "texture.png", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def test_training_writes_previews_and_metrics(trained: Path) -> None:
    run = trained / "runs" / "texture"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 21))
    assert len(list((run / "previews").iterdir())) == 10


def test_a_resumed_training_equals_an_uninterrupted_one(trained: Path) -> None:
    words = ["train", "texture.png", *SMALL]
    stopped = gcn(*words, "-o", "stopped", "--max-time", "0.001s", cwd=trained)
    assert stopped.returncode == 0, stopped.stderr.decode()
    assert b"time limit after iteration 1 " in stopped.stderr
    assert b"a complete training in this time is --iterations 1 --overwrite" in stopped.stderr
    assert gcn(*words, "-o", "stopped", cwd=trained).returncode == 0
    ours, theirs = (
        gcn("synthesize", "--model", run, "-o", "-", cwd=trained).stdout
        for run in ("stopped", "runs/texture")
    )
    assert ours == theirs


def test_samples_of_any_size_and_from_a_picture(trained: Path) -> None:
    for words, size in (
        ([], (40, 32)),
        (["--size", "64x32"], (64, 32)),
        (["--size", "35x21"], (35, 21)),
        (["--size", "36x22", "--seamless", "x"], (36, 22)),
        (["--seamless", "off"], (40, 32)),
        (["--start", "texture.png", "--noise-level", "0.5", "--steps", "4"], (40, 32)),
        (["--set", "padding_mode=reflect", "--precision", "bf16"], (40, 32)),
    ):
        target = ["-o", "out.png", "--overwrite", "--model", "runs/texture"]
        done = gcn("synthesize", *words, *target, cwd=trained)
        assert done.returncode == 0, done.stderr.decode()
        with Image.open(trained / "out.png") as picture:
            assert picture.size == size


def test_a_picture_barely_noised_stays_itself(trained: Path) -> None:
    words = [
        "--start",
        "texture.png",
        "--noise-level",
        "0.03",
        "--steps",
        "1",
        "--model",
        "runs/texture",
    ]
    assert gcn("synthesize", *words, "-o", "same.png", "--overwrite", cwd=trained).returncode == 0
    ours, theirs = (read(str(trained / name)) for name in ("same.png", "texture.png"))
    assert float((ours - theirs).abs().mean()) < 0.1 * float(theirs.std())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["synthesize", "--set", "step_size=0.3"], "step_size: only for published models"),
        (["synthesize", "--start", "chains"], "--start chains: only for published models"),
        (["synthesize", "--set", "noise=false"], "noise: only for published models"),
        (["synthesize", "--noise-level", "1"], "--noise-level: "),
        (["synthesize", "--steps", "0"], "--steps 0"),
        (
            ["synthesize", "--seamless", "x", "--set", "padding_mode=reflect"],
            "--seamless: needs circular padding",
        ),
        (["synthesize", "--device", "cpu", "--size", "1000000"], "GiB for the image"),
        (["synthesize", "--device", "cpu", "--size", "1000000000000"], "GiB for the image"),
        (["synthesize", "--threads", "100000"], "100000 is not in the range 1<=x<=1024"),
        (
            ["synthesize", "--start", "texture.png", "--noise-level", "nan"],
            "--noise-level nan: must be more than 0",
        ),
        (
            ["inspect", "image", "texture.png", "--noise-level", "nan"],
            "--noise-level nan: must be",
        ),
        (
            ["train", "texture.png", *SMALL, "-o", "texture.png"],
            "--output texture.png: File exists; name a folder",
        ),
        (["train", "texture.png", *SMALL, "-o", "/proc/x"], "--output /proc/x: "),
        (["synthesize", "--seed", "3-1"], "'3-1' is not seeds"),
        (["synthesize", "--seed", "1,2", "-o", "one.png"], "one file for 2 images"),
        (["synthesize", "--count", "2", "-o", "{seed}.png"], "several images get one name"),
        (["synthesize", "-o", "{sead}.png"], "a template knows {seed}, {index}"),
        (["synthesize", "-o", "{seed}.doc"], "unknown image format"),
        (["synthesize", "--sheet", "sheet.doc"], "sheet.doc: unknown image format"),
        (["reconstruct", "texture.png", "--extend", "0,0,0,0"], "--extend 0,0,0,0: pixels to add"),
        (["reconstruct", "texture.png", "--extend", "1,2"], "'1,2' is not LEFT,TOP,RIGHT,BOTTOM"),
        (["reconstruct", "texture.png", "--mask", "flat.png"], "is 160x160, the image 40x32"),
        (
            ["reconstruct", "texture.png", "--mask", "texture.png", "--noise-level", "1"],
            "--noise-level: ",
        ),
        (["reconstruct", "texture.png", "--mask", "alpha"], "no transparency"),
        (
            ["reconstruct", "texture.png", "--make-seamless", "16"],
            "--make-seamless 16: must be less than half",
        ),
        (["reconstruct", "texture.png", "--count", "2"], "--count, --seed: need --mask"),
        (
            ["reconstruct", "texture.png", "--mask", "black.png"],
            "--mask: must be white in some places",
        ),
        (
            ["reconstruct", "texture.png", "--mask", "black.png", "--make-seamless", "4"],
            "give only one of them",
        ),
        (
            ["train", "texture.png", "--set", "sigma=2"],
            "--set sigma: has no meaning with --set learner=denoise,mle",
        ),
        (
            ["train", "texture.png", "--set", "learner=denoise", "--set", "likelihood_weight=2"],
            "--set likelihood_weight: has no meaning with --set learner=denoise",
        ),
        (
            ["train", "texture.png", "--set", "shifts=2"],
            "--set shifts=2: crops are shifted already",
        ),
        (
            ["train", "texture.png", "--set", "head=true"],
            "--set head=true: needs whole upright images",
        ),
        (
            ["train", "texture.png", "--set", "crop=20", "--set", "margin=10"],
            "--set margin=10: must be under half of crop, 20",
        ),
        (["train", "flat.png"], "one color only"),
        (["train", "tiny.png"], "8 pixels, is too small to train on"),
        (["train", "texture.png", *SMALL, "--set", "crop=18"], "multiples of 4"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, trained: Path) -> None:
    Image.new("RGB", (160, 160), "red").save(trained / "flat.png")
    Image.effect_noise((8, 8), 60).save(trained / "tiny.png")
    Image.new("L", (40, 32)).save(trained / "black.png")
    model = ["--model", "runs/texture"] if words[0] != "train" else ["-o", "runs/bad"]
    if "-o" in words and words[0] == "train":
        model = []
    done = gcn(*words, *model, cwd=trained)
    assert done.returncode == 2, done.stderr.decode()
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_inspect_and_reconstruct_take_a_noise_level(trained: Path) -> None:
    words = ("--model", "runs/texture", "--noise-level", "0.3", "--json")
    done = gcn("inspect", "image", "texture.png", *words, cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    assert len(json.loads(done.stdout)["image"]["open_gates"]) == 2
    again = gcn("reconstruct", "texture.png", *words, "-o", "rec", "--overwrite", cwd=trained)
    assert again.returncode == 0, again.stderr.decode()
    assert json.loads(again.stdout)["files"][0]["psnr_db"] > 0


def test_a_folder_of_objects_gets_a_head_and_keeps_its_size(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(4):
        pixels = torch.zeros(3, 16, 16)
        pixels[:, 2 + number : 10, 3:9] = 200
        images.write(pixels, str(folder / f"{number}.png"))
    words = [
        "--preset",
        "object",
        "--set",
        "layers=8@5,8@3/2",
        "--iterations",
        "5",
        "--device",
        "cpu",
    ]
    done = gcn("train", "faces", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert gcn("synthesize", "--count", "2", cwd=tmp_path).returncode == 0
    refused = gcn("synthesize", "--size", "32", cwd=tmp_path)
    assert refused.returncode == 2
    assert b"head for 16x16" in refused.stderr


def test_several_samples_from_one_picture_on_stdin(trained: Path) -> None:
    words = ["--start", "-", "--count", "2", "--steps", "2", "--json", "--model", "runs/texture"]
    picture = (trained / "texture.png").read_bytes()
    done = gcn("synthesize", *words, "-o", "both", cwd=trained, stdin=picture)
    assert done.returncode == 0, done.stderr.decode()
    rows = json.loads(done.stdout)["files"]
    assert [(row["width"], row["height"]) for row in rows] == [(40, 32)] * 2
    assert (trained / "both" / "sample-0002.png").exists()


def test_repairs_keep_what_is_kept_to_the_bit(trained: Path) -> None:
    mask = Image.new("L", (40, 32))
    mask.paste(255, (10, 8, 22, 20))
    mask.save(trained / "mask.png")
    words = ["--mask", "mask.png", "--steps", "3", "--count", "2", "--seed", "4", "-o", "repaired"]
    done = gcn("reconstruct", "texture.png", *words, "--model", "runs/texture", cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    paths = done.stdout.decode().split()
    assert paths == ["repaired/texture-1.png", "repaired/texture-2.png"]
    theirs = read(str(trained / "texture.png"))
    kept = read(str(trained / "mask.png"), mode="L")[0] < 128
    ours = [read(str(trained / path)) for path in paths]
    for one in ours:
        assert torch.equal(one[:, kept], theirs[:, kept])
        assert not torch.equal(one[:, ~kept], theirs[:, ~kept])
    assert not torch.equal(ours[0], ours[1])
    again = gcn("reconstruct", "texture.png", *words, "--model", "runs/texture", cwd=trained)
    assert again.returncode == 2
    assert b"--overwrite" in again.stderr


def test_what_is_clear_is_made_anew_and_pictures_go_on_outwards(trained: Path) -> None:
    picture = Image.open(trained / "texture.png").convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 9, 32))
    picture.save(trained / "clear.png")
    model = ["--model", "runs/texture", "--steps", "2"]
    for words, folder, size, kept in (
        (["--mask", "alpha"], "clear", (40, 32), (slice(0, 32), slice(9, 40), 9, 0)),
        (["--extend", "3,0,20,5"], "wider", (63, 37), (slice(0, 32), slice(3, 43), 0, 0)),
        (["--make-seamless", "6"], "tile", (40, 32), (slice(6, 26), slice(6, 34), 6, 6)),
    ):
        source = "clear.png" if folder == "clear" else "texture.png"
        done = gcn("reconstruct", source, *words, *model, "-o", folder, "--json", cwd=trained)
        assert done.returncode == 0, done.stderr.decode()
        (record,) = json.loads(done.stdout)["files"]
        assert (record["width"], record["height"]) == size
        ours = read(str(trained / record["path"]))
        theirs = read(str(trained / "texture.png"))
        rows, columns, left, top = kept
        height, width = rows.stop - rows.start, columns.stop - columns.start
        part = theirs[:, top : top + height, left : left + width]
        assert torch.equal(ours[:, rows, columns], part)


def test_several_seeds_have_names_of_their_own_and_a_sheet(trained: Path) -> None:
    words = ["--seed", "5,1-2", "--steps", "2", "--size", "24x20", "--model", "runs/texture"]
    named = ["-o", "out/{model}-{size}-{seed}-{index}.webp", "--sheet", "out/sheet.png"]
    done = gcn("synthesize", *words, *named, "--json", cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    rows = json.loads(done.stdout)["files"]
    assert [row["path"] for row in rows] == [f"out/texture-24x20-{k}-0.webp" for k in (5, 1, 2)]
    assert [row["seed"] for row in rows] == [5, 1, 2]
    assert all(row["seam_x"] > 0 for row in rows)
    with Image.open(trained / "out" / "sheet.png") as sheet:
        assert sheet.size == (24 * 2 + 2, 20 * 2 + 2)
    alone = ["--seed", "1", "--steps", "2", "--size", "24x20", "--model", "runs/texture"]
    shown = ["-o", "one.png", "--sheet", "four.png", "--overwrite"]
    assert gcn("synthesize", *alone, *shown, cwd=trained).returncode == 0
    one, four = (read(str(trained / name)) for name in ("one.png", "four.png"))
    assert torch.equal(four, one.repeat(1, 2, 2))
    in_sheet = read(str(trained / "out" / "sheet.png"))
    assert torch.equal(in_sheet[:, :20, 26:], one)
