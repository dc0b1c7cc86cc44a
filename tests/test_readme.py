"""The README's commands do what they say, on small pictures and short trainings."""

import re
import shlex
from pathlib import Path

from PIL import Image

from tests.cli.running import gcn, gcn_process

ROOT = Path(__file__).parent.parent
SMALL_LADDER = ["--layers", "8@5,8@3/2", "--iterations", "3"]
SMALL_CROP = ["--crop", "16", "--margin", "2"]
SMALL_PAPER = ["--layers", "4@5/2+2", "--iterations", "2", "--size", "24"]


def commands() -> list[list[str]]:
    """Every line of the README's shell blocks, comments cut off."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def shortened(words: list[str]) -> list[str]:
    """The same command with less to do, in nothing else different."""
    if words[0] != "train":
        return words
    if any(word.startswith("paper-") for word in words):
        return [*words, *SMALL_PAPER]
    return [*words, *SMALL_LADDER, *([] if "object" in words else SMALL_CROP)]


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    noise = Image.effect_noise((96, 80), 60).convert("RGB")
    noise.save(tmp_path / "texture.jpg")
    mask = Image.new("L", noise.size)
    mask.paste(255, (20, 20, 40, 40))
    mask.save(tmp_path / "mask.png")
    for linked in ("albedo", "normal", "roughness"):
        noise.save(tmp_path / f"{linked}.png")
    (tmp_path / "faces").mkdir()
    for number in range(3):
        noise.crop((number, 0, number + 16, 16)).save(tmp_path / "faces" / f"{number}.png")
    ran: set[str] = set()
    for name, *words in commands():
        if name == "gcn":
            # A model by name: which run is the newest depends on the clock's grain.
            model = ["--model", "runs/texture"] if words[0] != "train" else []
            # The first of each as a process, as a user starts it; the rest where torch is loaded.
            start = gcn if words[0] in ran else gcn_process
            done = start(*shortened(words), *model, cwd=tmp_path)
            assert done.returncode == 0, (words, done.stderr.decode())
            ran.add(words[0])
    assert ran == {"train", "synthesize", "reconstruct", "inspect"}


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_files_that_the_readme_shows_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_python_of_the_readme_is_that_of_the_documents() -> None:
    """What tests/test_api.py runs begins with it, but for two lines made one."""
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    page = (ROOT / "docs" / "reading.md").read_text()
    first_two = shown.strip().splitlines()[:3]
    assert "\n".join(first_two) in page
