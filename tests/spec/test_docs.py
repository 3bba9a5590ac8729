"""docs/spec-language.md: its files load, its commands print what it shows, its plugin builds, its reference is the grammar."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from vitscope.cli import main
from vitscope.spec import load_spec
from vitscope.spec.reference import BEGIN, with_reference
from vitscope.spec.resolve import TOP_KEYS
from vitscope.spec.stages import STAGE_KEYS
from vitscope.spec.text import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_PROBLEMS
from vitscope.spec.zoo import zoo_folder

DOCUMENT = Path(__file__).parents[2] / "docs" / "spec-language.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^\$ vitscope (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
COMMANDS = [
    (command, output) for kind, text in FENCED if kind == "console" for command, output in CONSOLE.findall(text)
]


def without_lists(text: str) -> str:
    """`text` with its lists of kinds and keys cut short, as on the page: they grow with the grammar."""
    return re.sub(r"\b(kinds|keys): .*", r"\1: …", text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page shows, as the working directory."""
    for kind, text in FENCED:
        if kind in ("yaml", "python"):
            name = re.match(r"# (\S+)\n", text)
            assert name, f"a file without its name in the first line: {text[:60]}"
            (tmp_path / name[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITSCOPE_ALLOW_PLUGINS", raising=False)
    return tmp_path


@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_commands_print_what_the_page_shows(
    command: str, output: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(shlex.split(command))
    printed = "".join(capsys.readouterr())
    assert without_lists(printed.replace(f"{zoo_folder()}{os.sep}", "")) == output
    assert code == (0 if ": ok, " in output else 2)


def test_every_file_of_the_page_is_used_by_a_command() -> None:
    files = [re.match(r"# (\S+)\n", text) for kind, text in FENCED if kind == "yaml"]
    assert files
    for name in files:
        assert name and any(name[1] in command for command, _ in COMMANDS)


def test_the_plugin_of_the_page_builds_and_traces_to_the_shapes_it_promises(folder: Path) -> None:
    import torch

    from vitscope.graph.trace import trace
    from vitscope.model import build, build_block
    from vitscope.spec.flow import flow

    spec = load_spec("next.yaml", allow_plugins=True)
    with torch.device("meta"):
        for placed in flow(spec):
            if placed.block.kind == "convnext":
                module = build_block(placed.block, placed.in_shape)
                graph = trace(module, torch.empty(placed.in_shape.tensor()))
                assert graph.tensors[graph.outputs[0]].shape == placed.out_shape.tensor()
        assert build(spec)(torch.empty(2, 3, 64, 64)).shape == (2, 10)
    assert any(name.startswith("vitscope_plugin_my_blocks") for name in sys.modules)


def test_the_reference_is_what_the_grammar_says() -> None:
    assert with_reference(TEXT) == TEXT, "run: python -m vitscope.spec.reference"


@pytest.mark.parametrize("key", [*TOP_KEYS, *STAGE_KEYS])
def test_every_key_is_explained(key: str) -> None:
    assert re.search(rf"^\| .*`{key}`.* \|", TEXT.partition(BEGIN)[0], re.MULTILINE)


def test_the_limits_are_those_of_the_reader() -> None:
    limits = (
        f"at most {MAX_BYTES // 1_000_000} MB, {MAX_NODES:,} values once its aliases are followed, {MAX_DEPTH} levels"
    )
    assert limits in TEXT and f"After {MAX_PROBLEMS} problems" in TEXT
