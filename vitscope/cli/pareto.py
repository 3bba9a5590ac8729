"""`vitscope pareto`: which of a table's models nothing beats, as a table and as a figure."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.errors import UsageError, nearest

if TYPE_CHECKING:
    from vitscope.pareto import FrontData

_FIGURES = (".svg", ".png", ".pdf")  # plot.figure's FORMS, known here without loading it
_TABLES = (".csv", ".json", ".md", ".txt")


class Direction(str, Enum):
    """Which end of an axis is better."""

    min = "min"
    max = "max"


class Duplicates(str, Enum):
    """What becomes of rows that share a label."""

    keep = "keep"
    first = "first"
    best = "best"
    median = "median"


class Format(str, Enum):
    """How the table is written."""

    text = "text"
    md = "md"
    json = "json"
    csv = "csv"


class Join(str, Enum):
    """The order in which a line runs through a family."""

    x = "x"
    rows = "rows"
    none = "none"


class LabelChoice(str, Enum):
    """Which points of the figure carry their name."""

    auto = "auto"
    all = "all"
    front = "front"
    none = "none"


def pareto(
    results: Annotated[
        list[str], typer.Argument(metavar="RESULTS…", help="CSV files; - is stdin; 'published' is the shipped table.")
    ],
    x: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of x, or a quantity as latency, params, macs.")
    ] = None,
    y: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of y, or a quantity as top1, miou, throughput.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="COL", help="Column that the bubbles' area is proportional to.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COL", help="Column that names a point.")] = None,
    family: Annotated[
        str | None, typer.Option(metavar="COL", help="Column whose equal values are joined by a line.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(metavar="COL[:min|max]", help="A further objective of the front (repeatable).")
    ] = None,
    x_direction: Annotated[
        Direction | None, typer.Option(help="Which x is better, where the column does not say.")
    ] = None,
    y_direction: Annotated[
        Direction | None, typer.Option(help="Which y is better, where the column does not say.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Keep rows with COL=VALUE, COL!=VALUE, COL~TEXT or COL<NUMBER; A|B are alternatives. Repeat to narrow.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Keep rows of this device; also the device that --add predicts for."),
    ] = None,
    duplicates: Annotated[
        Duplicates,
        typer.Option(help="Rows of one label: keep all, the first, the best on x, or the median of each number."),
    ] = Duplicates.keep,
    fill_size: Annotated[
        bool, typer.Option("--fill-size", help="Take a missing size from other rows of the same label (their median).")
    ] = False,
    add: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Place a prototype by its predicted latency (repeatable).")
    ] = None,
    add_y: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="The y of a prototype, where its spec reports none.")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Figure (.svg .png .pdf) or table (.csv .json .md .txt); repeatable."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    log_x: Annotated[bool, typer.Option("--log-x", help="Logarithmic x axis.")] = False,
    title: Annotated[str, typer.Option(help="Title of the figure.")] = "",
    labels: Annotated[LabelChoice, typer.Option(help="Which points of the figure are named.")] = LabelChoice.auto,
    join: Annotated[
        Join, typer.Option(help="Lines of families: by x, in the order of the table's rows, or none.")
    ] = Join.x,
    form: Annotated[Format, typer.Option("--format", help="Format of the table on stdout.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Same as --format csv.")] = False,
) -> None:
    """Show the Pareto front of a results table, and draw it.

    Without --x and --y: latency, and of top-1, mIoU and mAP the first that the rows give. The table goes to stdout, with what
    dominates each model.

    \b
    vitscope pareto published --device iphone12 --duplicates best -o front.svg
    """
    import sys

    from vitscope.cli.output import check_writable, show, write_file
    from vitscope.pareto import front_data
    from vitscope.report.front import front_csv, front_json, front_table
    from vitscope.results import STDIN, device_condition, parse_condition, read_results

    files = output or []
    for path in files:
        _check_suffix(path)
        check_writable(path, force)
    if len(set(files)) < len(files):
        raise UsageError("-o: the same file twice")
    if (
        (as_json and form not in (Format.text, Format.json))
        or (as_csv and form not in (Format.text, Format.csv))
        or (as_json and as_csv)
    ):
        raise UsageError("--json, --csv and --format ask for different formats: choose one")
    form = Format.json if as_json else Format.csv if as_csv else form
    if results.count(STDIN) > 1:
        raise UsageError("-: standard input can be read once only")
    if add_y and not add:
        raise UsageError("--add-y: there is no prototype without --add MODEL")

    conditions = [parse_condition(text) for text in where or []]
    tables = [read_results(name) for name in results]
    place = _one_device(device or [])
    if place is not None and (not add or any("device" in map(str.casefold, table.columns) for table in tables)):
        conditions.append(device_condition(place))
    data = front_data(
        tables,
        x=x,
        y=y,
        size=size,
        label=label,
        family=family,
        also=also or (),
        x_minimize=None if x_direction is None else x_direction is Direction.min,
        y_minimize=None if y_direction is None else y_direction is Direction.min,
        conditions=conditions,
        duplicates=duplicates.value,
        fill_size=fill_size,
    )
    if add:
        data = _with_prototypes(data, add, add_y or [], place)

    contents: dict[Path, str | bytes] = {}
    for path in files:
        if path.suffix.lower() in _FIGURES:
            from vitscope.plot.figure import FORMS
            from vitscope.plot.front import draw

            figure = FORMS[path.suffix.lower()]
            drawing = draw(data, figure, log_x=log_x, title=title, labels=labels.value, join=join.value)
            contents[path] = drawing.content
            for note in drawing.notes:
                print(f"{path}: {note}", file=sys.stderr)
        else:
            contents[path] = _table_text(data, path.suffix.lower()[1:])
    for path, content in contents.items():  # before the table, whose reader may have gone (`| head`)
        write_file(path, content, force)
        print(f"wrote {path}", file=sys.stderr)
    if form is Format.json:
        sys.stdout.write(front_json(data))
    elif form is Format.csv:
        sys.stdout.write(front_csv(data))
        for note in front_table(data).notes:
            print(note, file=sys.stderr)
    else:
        show(front_table(data), form.value)


def _one_device(devices: list[str]) -> str | None:
    if len(devices) > 1:
        raise UsageError(
            f"--device {devices[1]}: a front is of one device; run pareto once for each, or compare with several --device"
        )
    return devices[0] if devices else None


def _check_suffix(path: Path) -> None:
    allowed = (*_FIGURES, *_TABLES)
    if path.suffix.lower() not in allowed:
        raise UsageError(
            f"-o {path}: cannot tell the format from the suffix{nearest(path.suffix, allowed)}; "
            f"a figure is {', '.join(_FIGURES)}, a table {', '.join(_TABLES)}"
        )


def _with_prototypes(data: FrontData, models: list[str], accuracies: list[str], device: str | None) -> FrontData:
    from vitscope.prototype import parse_accuracies, place, prototype_point

    if data.x.key == "latency_s" and device is None:
        raise UsageError("--add: latency of which device? Name the predictor with --device NAME")
    given = parse_accuracies(accuracies)
    # Where no axis is a latency there is nothing to predict, and the device may be one that only the table knows.
    is_predicted = any(axis.key == "latency_s" for axis in (data.x, data.y, *data.also))
    return place(data, [prototype_point(model, device if is_predicted else None) for model in models], given)


def _table_text(data: FrontData, suffix: str) -> str:
    from vitscope.report.front import front_csv, front_json, front_table
    from vitscope.report.table import markdown, plain

    if suffix == "json":
        return front_json(data)
    if suffix == "csv":
        return front_csv(data)
    return markdown(front_table(data)) if suffix == "md" else plain(front_table(data))
