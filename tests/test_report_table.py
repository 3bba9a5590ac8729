"""A table in a terminal of any width: nothing is cut, no line is longer than the window."""

from __future__ import annotations

import pytest

from vitscope.report.table import Column, Row, Table, display_width, terminal

REASON = "the runner there was ended by SIGKILL during block, and its last words were none at all"
TABLE = Table(
    (Column("model", "left"), *(Column(f"figure {i}") for i in range(6)), Column("remarks", "left")),
    (
        Row(("efficientformerv2_s0", *(f"{i}2.345 ms" for i in range(6)), "")),
        Row(("mobilenetv2_100", *("–" for _ in range(6)), REASON), style="bad"),
    ),
    title="measured on a machine · batch 1",
    footer=(Row(("total", *(f"{i}8.9 ms" for i in range(6)), "")),),
    notes=("a note of some length that has to go on in the next line of a narrow window",),
)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def at(width: int, table: Table = TABLE) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        terminal(table)
        return capsys.readouterr().out.splitlines()

    return at


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 200])
def test_every_cell_can_be_read_in_any_window(printed, width: int) -> None:
    lines = printed(width)
    assert max(map(display_width, lines)) <= width
    text = "\n".join(lines)
    for row in (*TABLE.rows, *TABLE.footer):
        assert all(cell in text for cell in row.cells if cell != REASON)
    assert all(column.title in text for column in TABLE.columns)
    assert "…" not in text
    cells = [line.split("│")[-2].strip() for line in lines if line.count("│") > 1]
    assert "".join(REASON.split()) in "".join("".join(cells).split())
    assert text.count("mobilenetv2_100") == text.count("model"), "each part begins with the names of its rows"


def test_a_wide_window_has_one_table(printed) -> None:
    assert sum(line.startswith("┏") for line in printed(200)) == 1
    assert sum(line.startswith("┏") for line in printed(60)) > 2


def test_a_name_wider_than_the_window_is_folded(printed) -> None:
    name = "package.module:callable_" + "x" * 50
    lines = printed(30, Table((Column("model", "left"), Column("p50")), (Row((name, "1.000 ms")),)))
    assert max(map(len, lines)) <= 30
    folded = "".join(line.split("│")[1].strip() for line in lines if "│" in line)
    assert folded.startswith(name)
