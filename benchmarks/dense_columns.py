"""Give published.csv its columns for dense prediction: what the text of `variant` says, as `dataset`, `miou` and `map`.

The families that lump networks together are told apart too, so that a chart joins only what belongs together.

`python -m benchmarks.dense_columns` rewrites the shipped table in place; on a table that has the columns it changes nothing.
No figure comes from elsewhere: a row whose `variant` names no dataset keeps three empty cells.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path

PUBLISHED = Path(__file__).parent.parent / "vitscope" / "data" / "published.csv"
ADDED = ("dataset", "miou", "map")
AFTER = "top1"

# What `variant` may say of one dataset → (dataset, column). Two mIoUs of two training recipes are not one number: no match.
_MIOU = re.compile(r"(?:COCO AP [0-9./]+, )?(?P<dataset>Cityscapes|ADE20K|COCO) mIoU (?:all )?(?P<value>[0-9.]+)")
_MAP = re.compile(r"(?P<dataset>COCO) mAP (?P<value>[0-9.]+)(?:, LVIS [0-9.]+)?")

# Two families of the source hold several: by the start of a model's name, the one whose members a line should join.
FAMILIES = {
    "segmentation": {
        "SegFormer": "SegFormer",
        "SegNeXt": "SegNeXt",
        "SeaFormer": "SeaFormer",
        "TopFormer": "TopFormer",
        "DeepLabV3plus": "DeepLabV3+",
        "Lite-ASPP": "Lite-ASPP",
        "LR-ASPP": "LR-ASPP",
    },
    "EfficientViT-seg (MIT)": {
        "EfficientViT-B": "EfficientViT-B seg (MIT)",
        "EfficientViT-L": "EfficientViT-L seg (MIT)",
    },
}


def dense_result(variant: str) -> tuple[str, str, str]:
    """(dataset, miou, map) as text, each empty where `variant` does not give it.

    >>> dense_result("Cityscapes mIoU 75.653"), dense_result("COCO mAP 45.7, LVIS 41.8"), dense_result("S1")
    (('Cityscapes', '75.653', ''), ('COCO', '', '45.7'), ('', '', ''))
    """
    if match := _MIOU.fullmatch(variant):
        return match["dataset"], match["value"], ""
    if match := _MAP.fullmatch(variant):
        return match["dataset"], "", match["value"]
    return "", "", ""


def extended(text: str) -> str:
    """The table with its columns for dense prediction; every other cell, the order and the line ends as they were."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name for name in reader.fieldnames or () if name not in ADDED]
    at = columns.index(AFTER) + 1
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [*columns[:at], *ADDED, *columns[at:]], lineterminator="\r\n")
    writer.writeheader()
    for row in reader:
        row |= dict(zip(ADDED, dense_result(row["variant"]), strict=True))
        if parts := FAMILIES.get(row["family"]):
            row["family"] = next(family for start, family in parts.items() if row["model"].startswith(start))
        writer.writerow(row)
    return out.getvalue()


def main() -> None:
    text = PUBLISHED.read_bytes().decode()
    result = extended(text)
    rows = list(csv.DictReader(io.StringIO(result, newline="")))
    print(f"{sum(bool(r['miou']) for r in rows)} mIoU, {sum(bool(r['map']) for r in rows)} mAP", file=sys.stderr)
    if result != text:
        PUBLISHED.write_bytes(result.encode())


if __name__ == "__main__":
    main()
