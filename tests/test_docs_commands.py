"""Every command of README and the documentation: all are parsed, and all but a few are run in a small folder.

A command of triptych is parsed by the command line's own parser, so that an unknown command, option or value fails. The
slow test runs each block in order, as a user types it, in a sandbox that has the files that the pages name.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from triptych.pipeline.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), ROOT / "docker" / "README.md"]
)
SHELLS = ("console", "sh", "bash")
OPERATORS = {"&&", "||", "|", ";", "&", ";;", ">", "(", ")"}
# Commands that are only parsed, with the reason. The first pattern that is found in the line counts.
ONLY_PARSED = {
    r"recordings/|dataset/|--only text,audio,vision,words|--align words": "tests/test_recordings.py runs them",
    r"^python3\.11 -m venv": "README's two commands: .ci/run runs them as they stand",
    r"^pip install|^make |^pre-commit ": "they change the environment; .ci/run installs it",
    r"^docker |^export TRIPTYCH_|^--read-only": "they need an engine; tests/docker/build_and_run runs the image",
    r"^sbatch |^scancel |^squeue ": "they need SLURM; tests/test_cluster_docs.py runs the script",
    r"^dask |^export DASK_|--scheduler": "they need a cluster of their own; tests/test_cluster.py runs one",
    r"^openssl |^ssh ": "they make certificates and connections of the reader's own machines",
    r"^for part|^done|^wait|--partition|/data/": "a loop over parts of /data; tests/test_partition.py runs parts",
    r"triptych experiment table2": "all nine systems take hours; tests/test_experiments.py runs it on small ones",
    r"triptych doctor": "its exit code is that of the reader's machine; tests/test_cli.py runs it",
    r"triptych models pull": "it downloads; tests/test_models_pull.py runs it against a stand-in",
    r"triptych demo": "minutes; .ci/run runs it",
    r"^eval |^source |_COMPLETE=|completion": "they change the reader's shell; tests/test_completion.py",
    r"--to (parquet|hf)|--tensorboard": "they need an extra; the tests of exports and of training run them",
}


@dataclass(frozen=True)
class Line:
    """One command line of a page."""

    page: str
    text: str
    error: str = ""  # what the page shows it to end with

    @property
    def only_parsed(self) -> str | None:
        """Why the line is not run, or None."""
        return next((why for pattern, why in ONLY_PARSED.items() if re.search(pattern, self.text)), None)

    def shows(self, printed: str) -> bool:
        """Whether the page's error, which may leave a part out by ``...``, is what was printed."""
        return all(part.strip() in printed for part in self.error.split("..."))

    def commands(self) -> list[list[str]]:
        """Split the line at the shell's operators into commands, each a list of words."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        found: list[list[str]] = [[]]
        for word in lexer:
            if word in OPERATORS:
                found.append([])
            else:
                found[-1].append(word)
        return [words for words in found if words]


def lines(page: Path) -> list[Line]:
    """Return the command lines of a page: those after `$` in console blocks, and all of shell blocks."""
    found = []
    for block in re.finditer(
        r"^```(\w+)\n(.+?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if block[1] not in SHELLS:
            continue
        shown = [*block[2].replace("\\\n", " ").splitlines(), ""]
        for line, following in itertools.pairwise(shown):
            if block[1] == "console" and not line.startswith("$ "):
                continue
            text = line.removeprefix("$ ").strip()
            if text and not text.startswith("#"):
                error = following if following.startswith("error: ") else ""
                found.append(Line(str(page.relative_to(ROOT)), text, error))
    return found


def check(words: list[str]) -> None:
    """Parse the words after `triptych`; nothing is run, and no file needs to exist.

    Raises
    ------
    click.UsageError
        A command, an option or a value is unknown, or a required one is missing.
    """
    group: click.Command = cli
    context = click.Context(cli, info_name="triptych")
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]}")
        group, words = found, words[1:]
        context = click.Context(group, parent=context, info_name=group.name)
    values, left, _ = group.make_parser(context).parse_args(list(words))
    if left:
        raise click.UsageError(f"unexpected {left}")
    for parameter in group.params:
        value = values.get(parameter.name)
        if (
            isinstance(value, str | tuple | list)
            and not isinstance(parameter.type, click.Path)
            and "$" not in value
        ):
            with click.core.augment_usage_errors(context, parameter):
                parameter.process_value(context, value)
        if parameter.required and not value:
            raise click.UsageError(f"{group.name}: {parameter.name} is missing")


ALL = [line for page in PAGES for line in lines(page)]


def test_every_command_of_triptych_is_parsed() -> None:
    problems = []
    count = 0
    for line in ALL:
        for words in line.commands():
            while words and re.fullmatch(r"[A-Z_]+=.*|do|then", words[0]):
                words = words[1:]
            if not words or Path(words[0]).name != "triptych":
                continue
            count += 1
            try:
                check(words[1:])
            except click.UsageError as error:
                if not line.error or not line.shows(f"error: {error.format_message()}"):
                    problems.append(f"{line.page}: {line.text}: {error.format_message()}")
    assert problems == []
    assert count > 20


def test_every_command_in_the_text_exists() -> None:
    problems = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for quoted in re.findall(r"`triptych ([a-z][^`]*)`", text.replace("\n", " ")):
            name, *words = quoted.split()
            command = cli.commands.get(name)
            if command is None:
                problems.append(f"{page.name}: triptych {quoted}")
                continue
            inner = command.commands.values() if isinstance(command, click.Group) else [command]
            known = {option for one in inner for parameter in one.params for option in parameter.opts}
            unknown = {word for word in words if re.match(r"--?[a-z]", word)} - known - {"--help", "-h"}
            problems += [f"{page.name}: triptych {quoted}: {word}" for word in sorted(unknown)]
    assert problems == []


@pytest.mark.parametrize(
    "words",
    [
        "extrct clips/ -o features/",
        "extract clips/ -o features/ --jbos 2",
        "extract clips/",
        "export features/ --to xml out",
    ],
)
def test_a_wrong_command_is_noticed(words: str) -> None:
    with pytest.raises(click.UsageError):
        check(words.split())


def test_every_line_that_is_not_run_needs_its_reason() -> None:
    texts = [line.text for line in ALL]
    used = {next((p for p in ONLY_PARSED if re.search(p, text)), None) for text in texts}
    run = [line.text for line in ALL if line.only_parsed is None]
    assert all(re.match(r"triptych |python ", text) for text in run), run
    assert used - {None}


@pytest.fixture
def sandbox(tmp_path: Path, demo_clips: Path, demo_features: Path) -> Path:
    """A folder with everything that the pages name: clips, a data set, videos, features, a run's clip, a pickle."""
    folder = tmp_path / "sandbox"
    folder.mkdir()
    for name in ("clips", "sims", "SIMS"):
        (folder / name).symlink_to(demo_clips)
    (folder / "videos").mkdir()
    videos = sorted(demo_clips.rglob("*.mp4"))
    for number, video in enumerate(videos[:2], 1):
        shutil.copy(video, folder / "videos" / f"{number:04}.mp4")
    shutil.copy(videos[0], folder / "clip.mp4")
    shutil.copytree(demo_features, folder / "features")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def environment(small_bert: Path) -> dict[str, str]:
    """The reader's settings: a small language model, and searches of two trials."""
    settings = f"text.model={small_bert} vision.backend=facemesh"
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRIPTYCH_EXTRACT_SET": settings,
        "TRIPTYCH_EXTRACT_JOBS": "1",
        "TRIPTYCH_PREDICT_SET": f"text.model={small_bert}",
        "TRIPTYCH_PREDICT_TRANSCRIPT": "我很开心",
        "TRIPTYCH_TUNE_TRIALS": "2",
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({line.page for line in ALL if line.only_parsed is None}))
def test_the_commands_of_a_page_run(page: str, sandbox: Path, small_bert: Path) -> None:
    if page == "docs/quickstart.md":  # it starts from videos alone
        shutil.rmtree(sandbox / "features")
    if page == "docs/tables.md":  # it has a table that names the speakers
        with (sandbox / "features" / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with (sandbox / "clips.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "speaker"])
            writer.writeheader()
            writer.writerows({**row, "speaker": row["id"][:9]} for row in rows)
    given = environment(small_bert)
    export = ["triptych", "export", "features/", "--to", "mmsa", "unaligned_39.pkl"]
    if (sandbox / "features").exists():
        subprocess.run(export, cwd=sandbox, env=given, check=True, capture_output=True)
    ran = 0
    for line in (one for one in ALL if one.page == page and one.only_parsed is None):
        ended = subprocess.run(
            ["bash", "-c", line.text], cwd=sandbox, env=given, capture_output=True, text=True, check=False
        )
        assert ended.returncode == (2 if line.error else 0), f"{line.text}\n{ended.stdout}{ended.stderr}"
        assert line.shows(ended.stderr)
        ran += 1
    assert ran
