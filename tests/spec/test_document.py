"""Where a spec's text comes from: files good and bad, `extends`, and `--set`."""
# ruff: noqa: E501 — messages stand here in one piece, as they are printed

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from examples import MINI, edited, problems, read, without_kinds

from vitscope.errors import SpecError, UsageError, VitscopeError
from vitscope.spec import load_spec
from vitscope.spec.kinds.convolution import Classifier, ConvClassifier, ConvDownsample, ConvStem
from vitscope.spec.kinds.efficientformer import Attention, DualPath, Ffn


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with MINI in it as mini.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini.yaml").write_text(MINI)
    return tmp_path


def said(model: str, *overrides: str, kind: type[VitscopeError] = SpecError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_spec(model, overrides, **options)
    return without_kinds(str(caught.value))


def extended(folder: Path, text: str) -> Any:
    (folder / "variant.yaml").write_text("extends: mini.yaml\n" + text)
    return load_spec("variant.yaml")


def extension_problems(folder: Path, text: str) -> str:
    (folder / "variant.yaml").write_text("extends: mini.yaml\n" + text)
    return said("variant.yaml")


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("missing.yaml", "missing.yaml: no such file"),
        ("efficientformerv2_s1.yaml", "efficientformerv2_s1.yaml: no such file — did you mean 'efficientformerv2_s1'?"),
        ("eficientformerv2_s1",
         "eficientformerv2_s1: no such file, and no network of the zoo — did you mean 'efficientformerv2_s1'? (`vitscope zoo` lists them)"),
        (".", ".: is a directory, expected a spec file or a name of the zoo"),
        ("", "an empty name, expected a spec file or a name of the zoo"),
        ("a\x00b.yaml", "a\\x00b.yaml: no such file"),
        ("pipe.yaml", "pipe.yaml: is no regular file (a spec from a pipe is read with the name -)"),
    ],
)  # fmt: skip
def test_names_that_are_no_file(model: str, line: str, folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    assert said(model, kind=UsageError) == line


def test_a_name_too_long_for_the_file_system(folder: Path) -> None:
    line = said("x" * 5000, kind=UsageError)
    assert line.endswith("…: cannot read: File name too long") and len(line) < 300


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "bad.yaml: empty, expected a spec with name, input, stem, stages and head"),
        (b"a: 1\nb: \xe9\xff", "bad.yaml:2:4: not UTF-8 text (byte 0xe9): is this a spec?"),
        (b"\x89PNG\r\n\x1a\n\x00", "bad.yaml:1:1: not UTF-8 text (byte 0x89): is this a spec?"),
        (b"PK\x03\x04", "bad.yaml:1:3: a \\x03 cannot stand in YAML"),
        (MINI.encode("utf-16"), "bad.yaml:1:1: UTF-16 text, expected UTF-8: save the file as UTF-8"),
        (b"a: b\n" * 2_000_000, "bad.yaml: larger than 1,000,000 bytes, too large for a spec"),
    ],
)
def test_files_that_are_no_text(content: bytes, line: str, folder: Path) -> None:
    (folder / "bad.yaml").write_bytes(content)
    assert said("bad.yaml") == line


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(folder: Path) -> None:
    (folder / "mini2.yaml").write_bytes(b"\xef\xbb\xbf" + MINI.replace("\n", "\r\n").encode())
    assert load_spec("mini2.yaml") == read(MINI)


def test_a_spec_without_a_name_has_that_of_its_file(folder: Path) -> None:
    (folder / "my_net.yaml").write_text(edited("name: mini\n", ""))
    assert load_spec("my_net.yaml").name == "my_net"
    assert extended(folder, "act: relu\n").name == "variant"
    assert extended(folder, "name: own\n").name == "own"
    assert read(edited("name: mini\n", "")).name == "unnamed"


def test_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MINI.encode())))
    assert load_spec("-") == read(MINI)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert said("-") == "<stdin>:1:1: not UTF-8 text (byte 0xff): is this a spec?"


def test_what_a_variant_gives_replaces_and_the_rest_is_inherited(folder: Path) -> None:
    base, spec = read(MINI), extended(folder, "stem: {depth: 3}\nstages: {0: {depth: 3, expansion: [4, 3, 2]}}\n")
    assert spec.stem == ConvStem(width=16, depth=3)
    assert spec.stages[0].blocks == (Ffn(expansion=4.0), Ffn(expansion=3.0), Ffn(expansion=2.0))
    assert spec.stages[1] == base.stages[1] and spec.head == base.head
    assert extended(folder, "input: {1: 32}\n").input == (3, 32, 64)
    assert len(extended(folder, "stages: [{depth: 1, width: 16, block: ffn}]\n").stages) == 1


def test_a_mapping_changes_fields_and_another_kind_is_another_block(folder: Path) -> None:
    assert extended(folder, "head: {classes: 5}\n").head == Classifier(classes=5)
    assert extended(folder, "head: {block: classifier, norm: ln}\n").head == Classifier(classes=10, norm="ln")
    assert extended(folder, "head: {block: conv_classifier, width: 64}\n").head == ConvClassifier(width=64)
    assert extended(folder, "stages: {1: {downsample: dual_path}}\n").stages[1].downsample == DualPath(width=32)
    assert extended(folder, "stages: {1: {downsample: {kernel: 5}}}\n").stages[1].downsample == ConvDownsample(
        width=32, kernel=5
    )
    assert extended(folder, "stages: {1: {blocks: {0: {expansion: 2}}}}\n").stages[1].blocks == (
        Ffn(expansion=2.0), Ffn(expansion=2.0), Attention(),
    )  # fmt: skip


def test_block_takes_the_place_of_blocks_and_the_other_way_round(folder: Path) -> None:
    assert [b.kind for b in extended(folder, "stages: {1: {block: mb4d}}\n").stages[1].blocks] == ["mb4d"] * 3
    assert [b.kind for b in extended(folder, "stages: {0: {blocks: [mb4d, ffn]}}\n").stages[0].blocks] == [
        "mb4d",
        "ffn",
    ]
    assert [b.kind for b in read(MINI, "stages.0.blocks=[ffn, attention]").stages[0].blocks] == ["ffn", "attention"]


def test_figures_and_notes_of_the_base_are_not_inherited(folder: Path) -> None:
    (folder / "mini.yaml").write_text(MINI + "note: as printed\nreported: {source: here, macs: 1G}\n")
    base = load_spec("mini.yaml")
    assert base.reported is not None and base.note
    for spec in (
        extended(folder, "act: relu\n"),
        load_spec("mini.yaml", ["act=relu"]),
        load_spec("mini.yaml", resolution=(32, 32)),
    ):
        assert spec.reported is None
    assert load_spec("mini.yaml", resolution=(64, 64)).reported == base.reported
    assert load_spec("mini.yaml", ["note=mine"]).note == "mine"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("stages: {2: {depth: 8}}", "variant.yaml:2:10: no item 2 in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages: {-1: {depth: 8}}", "variant.yaml:2:10: no item -1 in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages: {a: 1}", "variant.yaml:2:10: no item 'a' in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages: {0: null}", "variant.yaml:2:13: a stage expects a mapping with depth, width and block, got null"),
        ("stages: null", "variant.yaml:2:9: a spec needs stages, a list, as [{depth: 2, width: 32, block: ffn}]"),
        ("stages: {1: {depth: 5}}",
         "variant.yaml:2:21: blocks lists 3 blocks, but the stage has depth 5, blocks at mini.yaml:6:35; ffn* would take what the depth leaves"),
        ("stages: {1: {downsample: null}}",
         "mini.yaml:6:36: stages.1.blocks.0: the stage has width 32, but 16 channels arrive and block ffn leaves 16: "
         "give the stage a downsample, or a block that changes the width"),
        ("head: {block: conv_classifier}", "variant.yaml:2:7: head conv_classifier needs width, a whole number from 1 to 65536"),
        ("stem: {block: classifier}", "variant.yaml:2:15: unknown stem 'classifier': that is a head; kinds: …"),
    ],
)  # fmt: skip
def test_mistakes_of_a_variant_stand_where_they_were_made(text: str, line: str, folder: Path) -> None:
    assert extension_problems(folder, text) == line


def test_mistakes_of_variant_and_base_come_together(folder: Path) -> None:
    (folder / "mini.yaml").write_text(MINI.replace("conv_stem", "conv_stm").replace("classes: 10", "classes: on"))
    lines = extension_problems(folder, "act: gleu\nact: relu\nstages: {0: {depth: 0}}\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "variant.yaml:2:6",
        "variant.yaml:3:1",
        "variant.yaml:4:21",
        "mini.yaml:3:15",
        "mini.yaml:7:36",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nope", "bad.yaml:1:10: extends nope: no such file, and no network of the zoo (`vitscope zoo` lists them)"),
        ("nope.yaml", "bad.yaml:1:10: extends nope.yaml: no such file"),
        (".", "bad.yaml:1:10: extends .: is a directory, expected a spec file or a name of the zoo"),
        ("''", "bad.yaml:1:10: extends an empty name, expected a spec file or a name of the zoo"),
        ("[mini.yaml]", "bad.yaml:1:10: extends expects the name of a spec, got ['mini.yaml']"),
        ("null", "bad.yaml:1:10: extends expects the name of a spec, got null"),
        ("bad.yaml", "bad.yaml:1:10: extends goes in a loop: bad.yaml → bad.yaml"),
        ("loop.yaml", "loop.yaml:1:10: extends goes in a loop: bad.yaml → loop.yaml → bad.yaml"),
        ("empty.yaml", "empty.yaml: empty, expected a spec with name, input, stem, stages and head"),
        ("list.yaml", "list.yaml:1:1: expected a mapping with name, input, stem, stages and head"),
        ("open.yaml", "open.yaml:2:1: not valid YAML: expected a value here"),
    ],
)
def test_bases_that_cannot_be(name: str, line: str, folder: Path) -> None:
    for file, text in {
        "loop.yaml": "extends: bad.yaml\n",
        "empty.yaml": "",
        "list.yaml": "[]",
        "open.yaml": "a: [\n",
    }.items():
        (folder / file).write_text(text)
    (folder / "bad.yaml").write_text(f"extends: {name}\n")
    assert said("bad.yaml") == line


def test_a_chain_has_a_length(folder: Path) -> None:
    for i in range(20):
        (folder / f"link{i}.yaml").write_text(f"extends: {f'link{i - 1}' if i else 'mini'}.yaml\n")
    assert load_spec("link15.yaml").stages == read(MINI).stages
    assert said("link16.yaml") == "link0.yaml:1:10: extends goes more than 16 files deep"


@pytest.mark.parametrize(
    "settings",
    [
        ["stages.1.depth=4", "stages.1.blocks=[ffn*, attention]"],
        ["stages[1].depth=4", "stages[1].blocks[0]=ffn*3"],
        ["stages.1={depth: 4, width: 32, blocks: [ffn*3, attention], downsample: conv}"],
    ],
)
def test_settings_are_applied_together(settings: list[str]) -> None:
    assert [block.kind for block in read(MINI, *settings).stages[1].blocks] == ["ffn"] * 3 + ["attention"]


def test_settings_reach_into_short_forms_and_the_last_one_wins() -> None:
    assert read(MINI, "stages.1.downsample.kernel=5").stages[1].downsample == ConvDownsample(width=32, kernel=5)
    assert read(MINI, "stages.1.blocks.0.expansion=2").stages[1].blocks[:2] == (Ffn(expansion=2.0), Ffn(expansion=2.0))
    assert read(MINI, "head=classifier", "head.classes=7", "head.classes=8").head == Classifier(classes=8)
    assert read(MINI, "head.classes=8", "head=classifier").head == Classifier()
    assert read(MINI, "stages.0.layer_scale_init=null").stages[0].blocks[0] == Ffn(layer_scale_init=None)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (s, "expected KEY=VALUE with keys and item numbers joined by dots, as stages.2.depth=8")
        for s in ("", "=", "a.b", "=3", ".=3", "..=3", "stages..depth=3", "stages.0.=3", "[0]=3", "stages[0=3", "stages.0]depth=3",
                  " stages.0.depth=3", "stages.0.depth =3", "stages.²=3", "a b=3")
    ] + [
        ("stages.0.depth=", "empty, expected a value (null for none)"),
        ("stages.0.depth= # x", "empty, expected a value (null for none)"),
        ("stages.2.depth=3", "no item 2 in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages.2=3", "no item 2 in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages.-1.depth=3", "no item -1 in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages.x.depth=3", "no item 'x' in stages: it has 0 to 1, and grows only by writing the whole list"),
        ("stages.0.depth.x=3", "stages.0.depth is 2 and has no parts"),
        ("stage.0.depth=3", "the spec has no stage — did you mean 'stages'? it has name, input, stem, stages, head"),
        ("stages.0.downsample.kernel=3", "stages.0 has no downsample; it has depth, width, block"),
        ("stages.0.depth=-1", "depth of a stage expects a whole number from 1 to 512, got -1"),
        ("stages.0.depth=on", "some YAML readers take on for a boolean: write true or false, or quote it as text"),
        ("stages.0.depth=[", "not valid YAML: expected a value here"),
        ("stages.0.depth=\ud800", "a \\ud800 cannot stand in YAML"),
        ("stages.1.expansion=[1, 2]", "expansion lists 2 values, but the stage has depth 3, depth at x.yaml:6:13"),
        ("stages.1.depth=4",
         "blocks lists 3 blocks, but the stage has depth 4, blocks at x.yaml:6:35; ffn* would take what the depth leaves"),
        ("stages.0=ffn", "a stage expects a mapping with depth, width and block, got 'ffn'"),
        ("head=classifer", "unknown head 'classifer' — did you mean 'classifier'? kinds: …"),
        ("stem=conv_stem", "stem conv_stem needs width, a whole number from 1 to 65536"),
        ("extends=efficientformerv2_s1", "extends belongs into a file: write one that extends the other spec, and give its name"),
        ("input=[3, 0, 64]", "input expects [channels, height, width] of whole numbers from 1 to 16384, got [3, 0, 64]"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(setting: str, text: str) -> None:
    from vitscope.spec.wording import printable

    assert problems(MINI, setting) == [f"--set {printable(setting)}: {text}"]


def test_all_bad_settings_are_reported_before_the_rest_of_the_file() -> None:
    lines = problems(edited("classes: 10", "classes: 0"), "a.b", "stages.0.depth=0", "stem.width=15")
    assert [line.split(": ")[0] for line in lines] == [
        "--set a.b",
        "--set stages.0.depth=0",
        "--set stem.width=15",
        "x.yaml:7:36",
    ]


def test_a_setting_is_shown_cut_short_and_on_one_line() -> None:
    (line,) = problems(MINI, "stages.0.depth=" + "9" * 5000)
    assert len(line) < 200
    (line,) = problems(MINI, "stages.0.depth=\n- a\n -b")
    assert line.isprintable()


def test_a_resolution_that_cannot_be_is_blamed_and_not_the_file(folder: Path) -> None:
    text = "input expects [channels, height, width] of whole numbers from 1 to 16384, got [3, 0, 99999]"
    assert said("mini.yaml", resolution=(0, 99999)) == f"resolution 0×99999: {text}"
