"""Converters are silent, and with --debug they are heard, on stderr alone."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import pytest
from conftest import require_package

from vitscope.cli import main
from vitscope.export.silence import is_shown, shown, silenced

SPEC = """
name: tiny
input: [3, 32, 32]
stem: {block: conv_stem, width: 8}
stages: [{depth: 1, width: 8, block: inverted_residual, expansion: 2}]
head: {block: classifier, classes: 10}
"""


def _talk() -> None:
    os.write(1, b"native out\n")
    os.write(2, b"native err\n")
    print("python out")
    warnings.warn("a warning", UserWarning, stacklevel=2)
    logging.getLogger("converter").error("a line of logging")


def test_nothing_is_heard_unless_it_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        _talk()
    assert capfd.readouterr() == ("", "")
    with shown(), silenced(), silenced():  # converters call one another
        _talk()
    out, err = capfd.readouterr()
    assert not out and {"native out", "native err", "python out"} <= set(err.splitlines())
    assert not is_shown()
    print("stdout is back")
    os.write(1, b"and its descriptor\n")
    out, _ = capfd.readouterr()
    assert "stdout is back" in out and "and its descriptor" in out


def test_debug_shows_what_a_converter_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require_package("litert_torch")
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC)
    command = ["export", str(spec), "--to", "litert", "--no-check", "--force", "-o", str(tmp_path)]
    assert main(command) == 0
    quiet = capfd.readouterr()
    assert main(["--debug", *command]) == 0
    loud = capfd.readouterr()
    assert loud.out == quiet.out and "tiny" in loud.out
    assert len(loud.err) > len(quiet.err) and "LiteRT-Torch Convert" in loud.err
