"""Document → Spec: what the keys mean, and for every mistake one line that says where, what, and the nearest that is right."""
# ruff: noqa: E501 — messages stand here in one piece, as they are printed

from __future__ import annotations

import pytest
from examples import MINI, STAGE, edited, problems, read

from vitscope.spec.fields import field_names
from vitscope.spec.kinds.convolution import Classifier, ConvDownsample, ConvStem, InvertedResidual
from vitscope.spec.kinds.efficientformer import Attention, Ffn, StrideAttention
from vitscope.spec.reported import REPORTED_KEYS
from vitscope.spec.stages import STAGE_KEYS

KINDS = "kinds: …"
FFN_KEYS = ", ".join(field_names(Ffn))
STAGE_WORDS = ", ".join(STAGE_KEYS)


def stage(text: str) -> str:
    """MINI with another first stage; its brace stands at column 5 of line 5."""
    return edited(STAGE, text)


def test_a_spec_is_its_text_with_defaults_filled_in() -> None:
    spec = read(MINI)
    assert (spec.name, spec.input, spec.drop_path_rate) == ("mini", (3, 64, 64), 0.0)
    assert spec.stem == ConvStem(width=16)
    assert spec.stages[0].blocks == (Ffn(), Ffn()) and spec.stages[0].downsample is None
    assert spec.stages[1].blocks == (Ffn(), Ffn(), Attention())
    assert spec.stages[1].downsample == ConvDownsample(width=32)
    assert spec.head == Classifier(classes=10)
    assert hash(spec) == hash(read(MINI)) and spec.digest == read(MINI).digest


def test_defaults_at_the_top_reach_every_block_that_has_the_field_and_does_not_give_it() -> None:
    text = MINI + "act: relu\nnorm: none\nlayer_scale_init: null\n"
    spec = read(text.replace("block: ffn}", "block: ffn, act: silu}"))
    assert spec.stem == ConvStem(width=16, act="relu", norm="none")
    assert spec.stages[0].blocks[0] == Ffn(act="silu", norm="none", layer_scale_init=None)
    assert spec.stages[1].blocks[2] == Attention(act="relu", norm="none", layer_scale_init=None)
    assert spec.head == Classifier(classes=10, norm="none")


@pytest.mark.parametrize(
    ("blocks", "kinds"),
    [
        ("depth: 3, block: ffn", "fff"), ("blocks: [ffn*3]", "fff"), ("blocks: [ffn, ffn, attention]", "ffa"),
        ("depth: 4, blocks: [ffn*, attention*2]", "ffaa"), ("depth: 3, blocks: [ffn, attention*, ffn]", "faf"),
        ("depth: 2, blocks: [ffn*2, attention*]", "ff"), ("blocks: [ffn * 2, {block: attention*2}]", "ffaa"),
    ],
)  # fmt: skip
def test_kinds_are_repeated(blocks: str, kinds: str) -> None:
    assert "".join(block.kind[0] for block in read(stage(f"{{width: 16, {blocks}}}")).stages[0].blocks) == kinds


def test_one_value_or_one_a_block_and_the_nearest_one_wins() -> None:
    text = "{depth: 4, width: 16, blocks: [ffn*2, {block: attention, expansion: 1}, stride_attention], "
    blocks = (
        read(stage(text + "expansion: [4, 3, 2, 2.5], num_heads: [null, null, 2, 4], key_dim: 8}")).stages[0].blocks
    )
    assert blocks[:2] == (Ffn(expansion=4.0), Ffn(expansion=3.0))
    assert blocks[2] == Attention(expansion=1.0, num_heads=2, key_dim=8)
    assert blocks[3] == StrideAttention(expansion=2.5, num_heads=4, key_dim=8)


def test_stride_and_width_of_a_stage_go_to_its_downsample_or_else_to_its_first_block() -> None:
    strided = read(stage("{depth: 1, width: 16, block: ffn, downsample: conv, stride: 4}")).stages[0]
    assert strided.downsample == ConvDownsample(width=16, stride=4)
    inverted = read(stage("{depth: 2, width: 16, block: inverted_residual, stride: 2}")).stages[0]
    assert inverted.blocks == (InvertedResidual(width=16, stride=2), InvertedResidual(width=16))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("depth: 0, width: 16, block: ffn", ["13: depth of a stage expects a whole number from 1 to 512, got 0"]),
        ("depth: 1000000000, width: 16, block: ffn", ["13: depth of a stage expects a whole number from 1 to 512, got 1000000000"]),
        ("depth: null, width: 16, block: ffn", ["13: depth of a stage expects a whole number from 1 to 512, got null"]),
        ("depth: true, width: 16, block: ffn", ["13: depth of a stage expects a whole number from 1 to 512, got true"]),
        ("depth: 2, width: -1, block: ffn", ["23: width of a stage expects a whole number from 1 to 65536, got -1"]),
        ("depth: 2, width: 1.5, block: ffn", ["23: width of a stage expects a whole number from 1 to 65536, got 1.5"]),
        ("depth: 2, width: '32', block: ffn", ["23: width of a stage expects a whole number from 1 to 65536, got '32'"]),
        ("depth: 2, width: x, block: inverted_residual", ["23: width of a stage expects a whole number from 1 to 65536, got 'x'"]),
        ("depth: 2, width: [1, 2], block: ffn, downsample: conv",
         ["23: width of a stage expects a whole number from 1 to 65536, got [1, 2]"]),
        ("depth: 2, block: ffn", ["5: a stage needs width, a whole number from 1 to 65536"]),
        ("width: 16, block: ffn", ["5: a stage needs depth, a whole number from 1 to 512"]),
        ("depth: 2, width: 16", ["5: a stage has neither block: one kind, nor blocks: a list of kinds"]),
        ("depth: 2, width: 16, block: ffn, blocks: [ffn]", ["5: a stage has both block and blocks: keep one"]),
        ("depth: 2, width: 16, block: ffn, expansion: [4]", ["50: expansion lists 1 value, but the stage has depth 2"]),
        ("depth: 2, width: 16, block: ffn, expansion: [4, 4, 4]", ["50: expansion lists 3 values, but the stage has depth 2"]),
        ("depth: 2, width: 16, block: ffn, expansion: ['4', 4]",
         ["51: expansion of ffn expects a number above 0 and at most 64, got '4'"]),
        ("depth: 2, width: 16, block: ffn, expansion: [[4], 4]",
         ["51: expansion of ffn expects a number above 0 and at most 64, got [4]: only a key of a stage takes a list, one value a block"]),
        ("depth: 2, width: 16, block: ffn, expansion: {a: 1}",
         ["50: expansion of ffn expects a number above 0 and at most 64, got {a: 1}"]),
        ("depth: 2, width: 16, block: ffn, expansion: true",
         ["50: expansion of ffn expects a number above 0 and at most 64, got true"]),
        ("depth: 2, width: 16, block: ffn, expansion: null",
         ["50: expansion of ffn expects a number above 0 and at most 64, got null"]),
        ("depth: 2, width: 16, block: ffn, kernel: 4", ["47: kernel of ffn: must be odd, got 4"]),
        ("depth: 2, width: 16, block: ffn, kernel: [3, 65]", ["51: kernel of ffn expects a whole number from 1 to 63, got 65"]),
        ("depth: 2, width: 16, block: ffn, act: gleu",
         ["44: unknown act 'gleu' — did you mean 'gelu'? one of: relu, relu6, gelu, gelu_tanh, silu, hardswish, none"]),
        ("depth: 2, width: 16, block: ffn, norm: batch", ["45: unknown norm 'batch'; one of: bn, gn, ln, none"]),
        ("depth: 2, width: 16, block: fnn", [f"34: unknown block 'fnn' — did you mean 'ffn'? {KINDS}"]),
        ("depth: 2, width: 16, block: FFN", [f"34: unknown block 'FFN' — did you mean 'ffn'? {KINDS}"]),
        ("depth: 2, width: 16, block: stride-attention",
         [f"34: unknown block 'stride-attention' — did you mean 'stride_attention'? {KINDS}"]),
        ("depth: 2, width: 16, block: classifier", [f"34: unknown block 'classifier': that is a head; {KINDS}"]),
        ("depth: 2, width: 16, block: ffn*2",
         ["34: block names one kind, the depth says how often; a list of kinds is blocks: [ffn*2]"]),
        ("depth: 2, width: 16, block: 3", ["34: block expects the name of a kind, got 3; a list of kinds is blocks: […]"]),
        ("depth: 2, width: 16, blocks: ffn", ["35: blocks expects a list, as [ffn*7, attention*2]; got 'ffn'"]),
        ("depth: 2, width: 16, blocks: []", ["35: blocks expects a list, as [ffn*7, attention*2]; got []"]),
        ("depth: 2, width: 16, blocks: [ffn*3]",
         ["35: blocks lists 3 blocks, but the stage has depth 2; ffn* would take what the depth leaves"]),
        ("depth: 2, width: 16, blocks: [ffn*, attention*]",
         ["35: two entries without a number after *: only one can take what the depth leaves"]),
        ("width: 16, blocks: [ffn*]", ["5: a stage needs depth, a whole number from 1 to 512, for `kind*` to fill up"]),
        ("width: 16, blocks: [ffn*300, ffn*300]", ["25: blocks lists 600 blocks, a stage has at most 512"]),
        ("depth: 2, width: 16, blocks: [ffn*0, ffn]", ["36: expected a whole number from 1 to 512 after *, got '0'"]),
        ("depth: 2, width: 16, blocks: [ffn*x, 3]",
         ["36: expected a whole number from 1 to 512 after *, got 'x'",
          "43: expected a kind, kind*3, or a mapping with block: kind; got 3"]),
        ("depth: 2, width: 16, blocks: [ffn, {block: ffn, expansoin: 3}]",
         [f"54: unknown key 'expansoin' of block ffn — did you mean 'expansion'? keys: {FFN_KEYS}"]),
        ("depth: 2, width: 16, block: ffn, expanson: 3, widht: 3",
         [f"39: unknown key 'expanson' of a stage of ffn — did you mean 'expansion'? keys: {FFN_KEYS}, {STAGE_WORDS}",
          f"52: unknown key 'widht' of a stage of ffn — did you mean 'width'? keys: {FFN_KEYS}, {STAGE_WORDS}"]),
        ("depth: 2, width: 16, blocks: [ffn, attention], num_heads: [4, 8]",
         ["65: block 0 is ffn, which has no num_heads: write null for it"]),
        ("depth: 2, width: 16, block: ffn, stride: 2", ["47: the first block, ffn, has no stride: give the stage a downsample"]),
        ("depth: 2, width: 16, block: ffn, downsample: {block: conv, stride: 2}, stride: 4",
         ["73: stride is given for the stage and for its downsample: keep one"]),
        ("depth: 2, width: 16, block: ffn, downsample: cnv",
         ["51: unknown downsample 'cnv' — did you mean 'conv'? kinds: …"]),
        ("depth: 2, width: 16, block: ffn, downsample: {kernel: 3}",
         ["51: downsample expects a kind, or a mapping with block: kind; names no kind; kinds: …"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_stage(text: str, lines: list[str]) -> None:
    assert [line.removeprefix("x.yaml:5:") for line in problems(stage(f"{{{text}}}"))] == lines


def test_a_stage_reports_everything_that_does_not_follow_from_something_else() -> None:
    text = "{depth: -2, width: 1.5, block: inverted_residual, expansion: [1], kernel: x, downsample: cnv, foo: 1}"
    assert [line.split(": ")[1].split(",")[0].split(" of ")[0] for line in problems(stage(text))] == [
        "depth", "width", "kernel", "unknown downsample 'cnv' — did you mean 'conv'? kinds", "unknown key 'foo'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("{block: conv_stem, width: 16}", "conv_stm", "3:7: unknown stem 'conv_stm' — did you mean 'conv_stem'? kinds: …"),
        ("{block: conv_stem, width: 16}", "conv_stem", "3:7: stem conv_stem needs width, a whole number from 1 to 65536"),
        ("{block: conv_stem, width: 16}", "{block: ffn}", "3:15: unknown stem 'ffn': that is a block; kinds: …"),
        ("width: 16}", "width: 15}", "3:33: width 15 cannot be halved 1 times for a stem of depth 2 (stem conv_stem)"),
        ("width: 16}", "width: 16, depth: 7}", "3:44: depth of conv_stem expects a whole number from 1 to 6, got 7"),
        ("{block: conv_stem, width: 16}", "null", "3:7: a spec needs stem, as {block: conv_stem, width: 32}"),
        ("classes: 10", "classes: 0", "7:36: classes of classifier expects a whole number from 1 to 10000000, got 0"),
        ("classes: 10", "classes: 1.0", "7:36: classes of classifier expects a whole number from 1 to 10000000, got 1.0"),
        ("classes: 10", "norm: gn", "7:33: unknown norm 'gn'; one of: bn, ln, none"),
        ("classifier, ", "classifer, ",
         "7:15: unknown head 'classifer' — did you mean 'classifier'? kinds: …"),
        ("[3, 64, 64]", "[3, 64]", "2:8: input expects [channels, height, width] of whole numbers from 1 to 16384, got [3, 64]"),
        ("[3, 64, 64]", "224", "2:8: input expects [channels, height, width] of whole numbers from 1 to 16384, got 224"),
        ("[3, 64, 64]", "[3, -1, 64]", "2:12: input expects [channels, height, width] of whole numbers from 1 to 16384, got [3, -1, 64]"),
        ("[3, 64, 64]", "[3, 64, true]",
         "2:16: input expects [channels, height, width] of whole numbers from 1 to 16384, got [3, 64, true]"),
        ("name: mini", "name: 3", "1:7: name expects a text, got 3"),
        ("name: mini", 'name: "a\\nb"', "1:7: name expects a text of one line without control characters, got 'a\\nb'"),
        ("name: mini", 'name: "\\e[31mred"', "1:7: name expects a text of one line without control characters, got '\\x1b[31mred'"),
        ("name: mini", "nmae: mini",
         "1:1: unknown key 'nmae' — did you mean 'name'? keys: name, extends, family, paper, note, input, act, norm, norm_eps, "
         "layer_scale_init, drop_path_rate, plugins, stem, stages, head, reported"),
        ("head:", "act: gleu\nhead:", "7:6: unknown act 'gleu' — did you mean 'gelu'? one of: relu, relu6, gelu, gelu_tanh, silu, hardswish, none"),
        ("head:", "norm_eps: 0\nhead:", "7:11: norm_eps expects a number above 0 and below 1, got 0"),
        ("head:", "norm: gn\nhead:",
         "7:7: norm 'gn' is not for head classifier, which takes one of bn, ln, none: give that head a norm of its own"),
        ("head:", "drop_path_rate: 1\nhead:", "7:17: drop_path_rate expects a number from 0 up to, not including, 1; got 1"),
        ("head:", "family: [a]\nhead:", "7:9: family expects a text, got ['a']"),
        ("head:", "reported: 3\nhead:", f"7:11: reported expects a mapping with {', '.join(REPORTED_KEYS)}; got 3"),
        ("head:", "reported: {macs: 1G}\nhead:", "7:11: reported needs source, the paper, table or page that prints them"),
        ("head:", "reported: {source: a, params: -1}\nhead:", "7:31: reported params: expected more than nothing, got -1"),
        ("head:", "reported: {source: a, latency: {a: 3}}\nhead:", "7:36: reported a: expected a time with its unit, as 1.1ms; got 3"),
        ("head:", "reported: {source: a, latency: {3: 3ms}}\nhead:", "7:36: the name of a device expects a text, got 3"),
    ],
)  # fmt: skip
def test_mistakes_elsewhere(old: str, new: str, line: str) -> None:
    assert problems(edited(old, new)) == [f"x.yaml:{line}"]


@pytest.mark.parametrize("text", ["~", "hello", "[1, 2]", "12"])
def test_what_is_no_mapping(text: str) -> None:
    assert problems(text) == ["x.yaml:1:1: expected a mapping with name, input, stem, stages and head"]


def test_what_a_spec_needs() -> None:
    assert problems("{}") == [
        "x.yaml:1:1: a spec needs input, [channels, height, width], as [3, 224, 224]",
        "x.yaml:1:1: a spec needs stem, as {block: conv_stem, width: 32}",
        "x.yaml:1:1: a spec needs stages, a list, as [{depth: 2, width: 32, block: ffn}]",
        "x.yaml:1:1: a spec needs head, as {block: classifier, classes: 1000}",
    ]


def test_stages_are_a_list_of_mappings() -> None:
    base = "input: [3, 64, 64]\nhead: classifier\nstem: {block: conv_stem, width: 16}\nstages: "
    example = "x.yaml:4:9: stages expects a list of stages, as [{depth: 2, width: 32, block: ffn}]"
    assert problems(base + "3") == [f"{example}; got 3"]
    assert problems(base + "[]") == [f"{example}; got []"]
    assert problems(base + "{0: {depth: 1}}") == [f"{example}; only a spec that extends another names stages by number"]
    assert problems(base + "[null, ffn]") == [
        "x.yaml:4:10: a stage expects a mapping with depth, width and block, got null",
        "x.yaml:4:16: a stage expects a mapping with depth, width and block, got 'ffn'",
    ]
    assert problems(base + f"[{', '.join([STAGE] * 65)}]") == ["x.yaml:4:9: 65 stages, a spec has at most 64"]


def test_a_bad_default_is_one_problem_and_not_one_a_block() -> None:
    assert len(problems(MINI + "act: gleu\nnorm: x\nnorm_eps: x\nlayer_scale_init: 11\n")) == 4


def test_what_the_reader_of_the_text_finds_comes_together_with_the_rest_but_not_twice() -> None:
    lines = problems(
        edited("width: 16}", "width: 0x10, dpth: 1}")
        .replace("classes: 10", "classes: 0")
        .replace("name", "act: relu\nact")
    )
    assert [line.split(": ")[0].removeprefix("x.yaml:") for line in lines] == ["2:1", "4:33", "4:39", "8:36"]


def test_very_many_problems_are_cut_short() -> None:
    lines = problems("\n".join(f"key_{i}: 1" for i in range(500)))
    assert len(lines) == 101 and lines[-1] == "x.yaml: 100 problems found, and looked no further"


def test_long_values_are_cut_short_and_control_characters_are_spelt_out() -> None:
    lines = problems(edited("classes: 10", f'classes: "{"a" * 5000}"') + '"\\e[2J\\u202e": 1\n')
    assert all(len(line) < 400 and line.isprintable() for line in lines) and len(lines) == 2
