"""`vitscope validate`: a line a good spec on stdout, every problem of the others on stderr, and the exit code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from examples import MINI, edited, without_kinds

from vitscope.cli import main


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(MINI)
    (tmp_path / "bad.yaml").write_text(edited("classes: 10", "classes: 0").replace("conv_stem", "conv_stm"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["validate", *arguments])
    out, err = capsys.readouterr()
    return code, out, without_kinds(err)


def test_good_ones_on_stdout_and_bad_ones_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "good.yaml", "bad.yaml", "efficientformerv2_s1", "missing.yaml")
    assert code == 2
    assert out == (
        "good.yaml: ok, 8 blocks, 3×64×64 → 10 classes\nefficientformerv2_s1: ok, 26 blocks, 3×224×224 → 1000 classes\n"
    )
    assert err == (
        "bad.yaml:3:15: unknown stem 'conv_stm' — did you mean 'conv_stem'? kinds: …\n"
        "bad.yaml:7:36: classes of classifier expects a whole number from 1 to 10000000, got 0\n"
        "missing.yaml: no such file\n"
    )


def test_all_good_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "good.yaml") == (0, "good.yaml: ok, 8 blocks, 3×64×64 → 10 classes\n", "")


def test_settings_and_resolution(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "good.yaml", "--resolution", "32x48", "--set", "stages.0.depth=5", "--set", "head.classes=7"
    )
    assert (code, out) == (0, "good.yaml: ok, 11 blocks, 3×32×48 → 7 classes\n")
    assert run(capsys, "good.yaml", "--set", "stages.0.depth=x")[0] == 2
    code, _, err = run(capsys, "good.yaml", "--resolution", "0")
    assert code == 2 and "--resolution 0" in err


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MINI.encode())))
    assert run(capsys, "-") == (0, "-: ok, 8 blocks, 3×64×64 → 10 classes\n", "")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "good.yaml", "bad.yaml", "--json")
    result = json.loads(out)
    assert code == 2 and result["schema_version"] == 1
    good, bad = result["specs"]
    assert set(good) == {"spec", "ok", "problems", "name", "input", "output", "blocks", "digest"}
    assert (good["spec"], good["ok"], good["problems"], good["name"]) == ("good.yaml", True, [], "mini")
    assert (good["input"], good["output"], good["blocks"]) == ([3, 64, 64], 10, 8)
    assert not bad["ok"] and [without_kinds(line) for line in bad["problems"]] == err.splitlines()


def test_a_spec_that_is_no_file_and_none_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, ".")[::2] == (2, ".: is a directory, expected a spec file or a name of the zoo\n")
    assert run(capsys)[0] == 2
