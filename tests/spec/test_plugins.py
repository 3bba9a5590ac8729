"""Kinds that users bring: run only when allowed, held to what a kind must be, and their mistakes told as the spec's."""
# ruff: noqa: E501 — messages stand here in one piece, as they are printed

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from examples import MINI, STAGE, edited, without_kinds

from vitscope.errors import SpecError
from vitscope.spec import Spec, load_spec, parse_spec, plugins

GOOD = """\
from dataclasses import dataclass
from typing import ClassVar
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.shape import FeatureShape

@dataclass(frozen=True, slots=True, kw_only=True)
class Foo(BlockSpec):
    kind: ClassVar[str] = "foo"
    size: int = 3

    def out_shape(self, x):
        return x

class Module: ...

BLOCKS = {Foo: Module}
"""
FOO = edited(STAGE, "{depth: 2, width: 16, block: foo}") + "plugins: [foo.py]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITSCOPE_ALLOW_PLUGINS", raising=False)
    (tmp_path / "foo.py").write_text(GOOD)
    (tmp_path / "net.yaml").write_text(FOO)
    return tmp_path


def load(**options: Any) -> Spec:
    return load_spec("net.yaml", allow_plugins=True, **options)


def said(**options: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(**options)
    return without_kinds(str(caught.value))


def test_a_plugin_runs_only_when_it_is_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "foo.py").write_text("open('ran', 'w').close()\n" + GOOD)
    refusal = (
        "this spec runs Python code from foo.py: read it, then give --allow-plugins (or set VITSCOPE_ALLOW_PLUGINS=1)"
    )
    for value in (None, "", "0"):
        if value is not None:
            monkeypatch.setenv("VITSCOPE_ALLOW_PLUGINS", value)
        with pytest.raises(SpecError) as caught:
            load_spec("net.yaml")
        assert str(caught.value) == f"net.yaml:8:10: {refusal}"
    with pytest.raises(SpecError) as caught:
        parse_spec(FOO, "x.yaml")
    assert str(caught.value) == f"x.yaml:8:10: {refusal}"
    assert not (folder / "ran").exists()
    monkeypatch.setenv("VITSCOPE_ALLOW_PLUGINS", "1")
    assert load_spec("net.yaml") == load() and (folder / "ran").exists()


def test_its_kinds_are_used_like_others(folder: Path) -> None:
    spec = load(overrides=["stages.0.size=[5, 7]"])
    assert [dataclasses.asdict(block) for block in spec.stages[0].blocks] == [{"size": 5}, {"size": 7}]
    assert spec.plugins == (str(folder / "foo.py"),)
    assert "unknown key 'sice' of a stage of foo — did you mean 'size'? keys: size, depth" in said(
        overrides=["stages.0.sice=5"]
    )
    assert "size of foo expects a whole number, got 'x'" in said(overrides=["stages.0.size=x"])
    assert "unknown block 'fo' — did you mean 'foo'? kinds: …" in said(overrides=["stages.0.block=fo"])


def test_a_plugin_stands_beside_the_file_that_names_it(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "foo.py").rename(folder / "sub" / "foo.py")
    (folder / "net.yaml").rename(folder / "sub" / "base.yaml")
    (folder / "net.yaml").write_text("extends: sub/base.yaml\nstages: {0: {size: 5}}\n")
    assert load().stages[0].blocks[0].kind == "foo"
    (folder / "net.yaml").write_text(MINI)
    assert load(overrides=["plugins=[sub/foo.py]", "stages.0.block=foo"]).stages[0].blocks[0].kind == "foo"
    (folder / "net.yaml").write_text("extends: sub/base.yaml\nplugins: [foo.py]\n")
    assert said() == "net.yaml:2:11: plugin foo.py: no such file"


def test_what_a_plugin_prints_is_no_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "foo.py").write_text(GOOD + "print('hello')\n")
    load()
    assert capsys.readouterr() == ("", "hello\n")


def test_a_field_may_be_a_list(folder: Path) -> None:
    (folder / "foo.py").write_text(GOOD.replace("size: int = 3", "sizes: tuple[int, ...] = (3,)"))
    (folder / "net.yaml").write_text(FOO.replace("block: foo", "blocks: [foo, {block: foo, sizes: [3, 5]}]"))
    assert [dataclasses.asdict(block)["sizes"] for block in load().stages[0].blocks] == [(3,), (3, 5)]
    (folder / "net.yaml").write_text(FOO.replace("block: foo", "blocks: [foo, {block: foo, sizes: [3, x]}]"))
    assert said() == "net.yaml:5:61: sizes of foo expects a list, each item a whole number, got [3, 'x']"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("foo.py", "plugins expects a list of Python files, as [my_blocks.py]; got 'foo.py'"),
        ("{a: b}", "plugins expects a list of Python files, as [my_blocks.py]; got {a: 'b'}"),
        ("[3]", "plugins expects a list of Python files, as [my_blocks.py]; got [3]"),
        ("['']", "plugins expects a list of Python files, as [my_blocks.py]; got ['']"),
    ],
)
def test_what_plugins_may_be(value: str, line: str, folder: Path) -> None:
    (folder / "net.yaml").write_text(MINI + f"plugins: {value}\n")
    assert said() == f"net.yaml:8:10: {line}"
    for nothing in ("[]", "null"):
        (folder / "net.yaml").write_text(MINI + f"plugins: {nothing}\n")
        assert load().plugins == ()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("missing.py", "missing.py: no such file"), (".", ".: no such file"), ("a\\0b", "a\\x00b: no such file"),
        ("x" * 3000, "x" * 200 + ": no such file"), ("net.yaml", "net.yaml is no Python file: its name must end in .py"),
    ],
)  # fmt: skip
def test_files_that_are_no_plugin(name: str, line: str, folder: Path) -> None:
    (folder / "net.yaml").write_text(MINI + f'plugins: ["{name}"]\n')
    assert said() == f"net.yaml:8:11: plugin {line}"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (GOOD + "raise ValueError('two\\nlines \\x1b[31m')", "raised ValueError in line 17: two lines \\x1b[31m"),
        ("def f():\n    1 / 0\nf()\n", "raised ZeroDivisionError in line 2: division by zero"),
        ("import no_such_module", "raised ModuleNotFoundError in line 1: No module named 'no_such_module'"),
        ("def f(:\n", "raised SyntaxError in line 1: invalid syntax"),
        ("x = 1\nimport sys\nsys.exit(0)\n", "raised SystemExit in line 3: 0"),
        ("raise SystemExit", "raised SystemExit in line 1: no message"),
        ("def f(): f()\nf()\n", "raised RecursionError in line 1: maximum recursion depth exceeded"),
        ("x = 1", "has no BLOCKS, a dict of grammar class → module class"),
        ("BLOCKS = {}", "has no BLOCKS, a dict of grammar class → module class"),
        ("BLOCKS = [1]", "has no BLOCKS, a dict of grammar class → module class"),
        ("BLOCKS = {int: int}", "has int in BLOCKS, which is no subclass of BlockSpec"),
        ("BLOCKS = {'foo': int}", "has 'foo' in BLOCKS, which is no subclass of BlockSpec"),
        (GOOD.replace("{Foo: Module}", "{Foo: None}"), "gives Foo no module class but null"),
        (GOOD.replace('"foo"', '"ffn"'), "defines block ffn, which exists already: choose another name"),
        (GOOD.replace('"foo"', '"foo*2"'), "has a class Foo whose kind is 'foo*2', expected a word of a-z, 0-9 and _"),
        (GOOD.replace('    kind: ClassVar[str] = "foo"\n', ""), "has a class Foo whose kind is null, expected a word of a-z, 0-9 and _"),
        (GOOD.replace("    size:", '    role: ClassVar[str] = "neck"\n    size:'),
         "has a class Foo whose role is 'neck', expected one of stem, downsample, block, head"),
        (GOOD.replace("@dataclass(frozen=True, slots=True, kw_only=True)\n", ""),
         "has a class Foo that is no frozen dataclass: decorate it with @dataclass(frozen=True, kw_only=True)"),
        (GOOD.replace("size: int", "depth: int"), "has a class Foo with a field depth, a word of the spec language: rename it"),
        (GOOD.replace("size: int", "size: 'nonsense'"), "has a class Foo whose fields cannot be read: name 'nonsense' is not defined"),
    ],
)  # fmt: skip
def test_what_a_plugin_does_wrong_is_one_line(code: str, what: str, folder: Path) -> None:
    (folder / "foo.py").write_text(code)
    assert said() == f"net.yaml:8:11: plugin foo.py {what}"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("1 / 0", "out_shape of foo raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "out_shape of foo raised SystemExit: 0"),
        ("return None", "out_shape of foo returned null, expected a FeatureShape"),
        ("return FeatureShape(0, 1, 1)", "out_shape of foo returned [0, 1, 1], expected whole numbers from 1"),
        ("return FeatureShape(16.0, 8, 8)", "out_shape of foo returned [16.0, 8, 8], expected whole numbers from 1"),
    ],
)
def test_an_out_shape_that_fails_is_a_misfit(body: str, what: str, folder: Path) -> None:
    (folder / "foo.py").write_text(GOOD.replace("return x", body))
    assert said() == f"net.yaml:5:34: stages.0.blocks.0 to 1: {what}"


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("def __post_init__(self): raise ValueError('size must be more')", "41: size must be more (block foo)"),
        ("def __post_init__(self): raise ValueError('no')", "34: no (block foo)"),
        ("def __post_init__(self): raise KeyError('k')", "34: block foo of a plugin raised KeyError: 'k'"),
        ("def __post_init__(self): raise SystemExit(1)", "34: block foo of a plugin raised SystemExit: 1"),
        ("def __hash__(self): return 1 / 0", "34: block foo of a plugin raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_block_that_cannot_be_made(method: str, line: str, folder: Path) -> None:
    (folder / "foo.py").write_text(GOOD.replace("    def out_shape", f"    {method}\n\n    def out_shape"))
    (folder / "net.yaml").write_text(FOO.replace("block: foo", "block: foo, size: 4"))
    assert said() == f"net.yaml:5:{line}".replace("5:41", "5:45")


def test_installed_plugins_are_asked_for_kinds_that_are_not_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscope.errors import VitscopeError

    table = plugins.load_plugin(folder / "foo.py")
    (folder / "net.yaml").write_text(edited(STAGE, "{depth: 2, width: 16, block: foo}"))
    monkeypatch.setattr(plugins, "_entry_points", lambda: (("installed", table),))
    assert load_spec("net.yaml").stages[0].blocks[0].kind == "foo"
    monkeypatch.setattr(plugins, "_entry_points", lambda: (("broken", VitscopeError("raised E: x")), ("odd", [1])))
    assert said().splitlines() == [
        "net.yaml:1:1: installed plugin broken raised E: x",
        "net.yaml:1:1: installed plugin odd has no BLOCKS, a dict of grammar class → module class",
        "net.yaml:5:34: unknown block 'foo'; kinds: …",
    ]
    (folder / "net.yaml").write_text(MINI)
    assert load_spec("net.yaml").name == "mini"
