"""The zoo as a table, and its check of printed figures: agreement to the digit, or a cause."""

from __future__ import annotations

import json

import pytest

from vitscope.catalogue import catalogue, check
from vitscope.cli import main
from vitscope.spec import load_spec
from vitscope.spec.zoo import zoo_names
from vitscope.units import printed_like


@pytest.mark.parametrize(
    ("value", "text", "rounded", "cut"),
    [
        (651_969_640, "0.65G", "0.65G", "0.65G"),
        (6_185_560, "6.1M", "6.2M", "6.1M"),
        (12_277_457, "12.27M", "12.28M", "12.27M"),
        (300_774_272, "0.3G", "0.3G", "0.3G"),
        (999_999, "1M", "1M", "0M"),
        (3_504_872, "3504872", "3504872", "3504872"),
    ],
)
def test_printed_like(value, text, rounded, cut):
    assert printed_like(value, text) == (rounded, cut)


def test_every_network_is_listed_once_with_a_family_and_a_paper():
    entries = catalogue()
    assert sorted(e.name for e in entries) == sorted(zoo_names())
    assert all(e.family and e.paper and e.params > 0 and e.macs > 0 for e in entries)


def test_filters():
    assert {e.name for e in catalogue(["s1", "140"])} >= {"efficientformerv2_s1", "mobilenetv2_140"}
    assert {e.family for e in catalogue(family="efficientformerv2")} == {"EfficientFormerV2"}


def test_the_papers_figures_come_out_in_the_papers_convention():
    found = {(c.name, c.figure): c for c in check(["efficientformer"])}
    for name in ("efficientformerv2_s0", "efficientformerv2_s1", "efficientformerv2_s2"):
        for figure in ("params", "macs"):
            assert found[name, figure].agreement in ("rounded", "cut off"), (name, figure)
    assert found["efficientformerv2_l", "macs"].agreement == "explained"


def test_no_printed_figure_differs_without_a_cause():
    assert [(c.name, c.figure, c.printed, c.ours) for c in check() if c.agreement == "unexplained"] == []


def test_a_cause_is_not_given_for_a_figure_that_agrees():
    idle = [(c.name, c.figure) for c in check() if c.cause and c.agreement != "explained"]
    assert idle == []


def test_reported_metric_fits_the_task():
    for name in zoo_names():
        reported = load_spec(name).reported
        assert reported is None or reported.accuracy is None or reported.accuracy[0] in ("top1", "miou", "map")


def test_the_command(capsys, tmp_path):
    assert main(["zoo", "efficientformerv2_s", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [n["name"] for n in data["networks"]] == [
        "efficientformerv2_s0",
        "efficientformerv2_s1",
        "efficientformerv2_s2",
    ]
    assert data["networks"][1]["macs"] == 651_969_640 and data["networks"][1]["accuracy"] == 79.0
    assert main(["zoo", "--check", "efficientformerv2"]) == 0
    assert "agree to the printed digit" in capsys.readouterr().out
    assert main(["zoo", "no_such_thing"]) == 2
    assert main(["zoo", "--family", "EfficientFormerV"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["zoo", "s1", "--csv", "-o", str(tmp_path / "zoo.csv")]) == 0
    assert (tmp_path / "zoo.csv").read_text().startswith("name,family,input,params,macs")


def test_a_figure_that_nobody_can_explain_fails_the_check(monkeypatch, capsys, tmp_path):
    from vitscope.spec import zoo

    (tmp_path / "odd.yaml").write_text(
        "name: odd\nfamily: Odd\npaper: none\ninput: [3, 32, 32]\nstem: {block: conv_stem, width: 8}\nhead: classifier\n"
        "stages: [{depth: 1, width: 8, block: ffn}]\nreported: {params: 99M, source: nowhere}\n"
    )
    monkeypatch.setattr(zoo, "_files", lambda: {"odd": tmp_path / "odd.yaml"})
    assert main(["zoo", "--check"]) == 1
    out = capsys.readouterr().out
    assert "unexplained" in out and "1 differ without one" in out
