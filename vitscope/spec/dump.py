"""dump_spec: Spec → the YAML text that means it, in the style of the zoo, with what is default left out."""

from __future__ import annotations

import json
import re
from itertools import groupby
from typing import Any

from vitscope.spec.fields import field_docs, field_names
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.value import Figure, Reported, Spec, Stage

_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off)$)[a-z]\w+(?:\*[0-9]+)?", re.ASCII | re.IGNORECASE)


def dump_spec(spec: Spec) -> str:
    """The text of `spec`; loading it gives an equal Spec."""
    texts = {key: getattr(spec, key) for key in ("name", "family", "paper", "note")}
    lines = [f"{key}: {_scalar(text)}" for key, text in texts.items() if text]
    lines.append(f"input: {_flow(list(spec.input))}")
    if spec.drop_path_rate:
        lines.append(f"drop_path_rate: {_scalar(spec.drop_path_rate)}")
    if spec.plugins:
        lines.append(f"plugins: {_flow(list(spec.plugins))}")
    lines.append(f"stem: {_flow(_block(spec.stem))}")
    lines += ["stages:", *(f"  - {_flow(_stage(stage))}" for stage in spec.stages)]
    lines.append(f"head: {_flow(_block(spec.head))}")
    if spec.reported is not None:
        lines += ["reported:", f"  {_flow(_reported(spec.reported))}"]
    return "\n".join(lines) + "\n"


def _block(block: BlockSpec, **known: Any) -> Any:
    """A kind alone, or a mapping with the fields that are neither default nor `known` from around it."""
    docs = field_docs(type(block))
    values = {name: getattr(block, name) for name in docs}
    given = {name: v for name, v in values.items() if not _same(v, known.get(name, docs[name].default))}
    return {"block": block.kind} | given if given else block.kind


def _stage(stage: Stage) -> dict[str, Any]:
    data: dict[str, Any] = {"depth": len(stage.blocks), "width": stage.width}
    first = stage.blocks[0]
    stride = getattr(first, "stride", None)
    if stage.downsample is None and "stride" in field_names(type(first)) and stride != _default(first, "stride"):
        data["stride"] = stride
    entries = []
    for j, block in enumerate(stage.blocks):  # what a key of the stage cannot say stands with the block
        known = {name: getattr(block, name) for name in field_names(type(block)) if name not in ("width", "stride")}
        known |= {"width": stage.width} | ({"stride": stride} if j == 0 and "stride" in data else {})
        own = _block(block, **known)
        entries.append(own if isinstance(own, dict) else {"block": own})
    runs = [(entry, len(list(same))) for entry, same in groupby(entries)]
    if len(runs) == 1 and list(runs[0][0]) == ["block"]:
        data["block"] = first.kind
    else:
        data["blocks"] = [_entry(entry, count) for entry, count in runs]
    names = dict.fromkeys(n for block in stage.blocks for n in field_names(type(block)) if n not in ("width", "stride"))
    for name in names:
        having = [block for block in stage.blocks if name in field_names(type(block))]
        values = [getattr(block, name) for block in having]
        if all(_same(value, _default(block, name)) for block, value in zip(having, values, strict=True)):
            continue
        if all(_same(value, values[0]) for value in values) and not isinstance(values[0], tuple):
            data[name] = values[0]
        else:
            data[name] = [getattr(block, name) if block in having else None for block in stage.blocks]
    if stage.downsample is not None:
        data["downsample"] = _block(stage.downsample, width=stage.width)
    return data


def _entry(entry: dict[str, Any], count: int) -> Any:
    kind = entry["block"] if count == 1 else f"{entry['block']}*{count}"
    return {**entry, "block": kind} if len(entry) > 1 else kind


def _default(block: BlockSpec, name: str) -> Any:
    return field_docs(type(block))[name].default


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _reported(reported: Reported) -> dict[str, Any]:
    times = {name: figure.text for name, figure in reported.latency}
    data = {
        "params": reported.params and reported.params.text,
        "macs": reported.macs and reported.macs.text,
        "top1": reported.top1,
        "miou": reported.miou,
        "map": reported.map,
        "latency": times or None,
        "source": reported.source,
        "convention": reported.convention if reported.convention != "vitscope" else None,
        "form": reported.form if reported.form != "train" else None,
        "differs": dict(reported.differs) or None,
    }
    return {key: value for key, value in data.items() if value is not None}


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_scalar(key)}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    return value.text if isinstance(value, Figure) else _scalar(value)  # a printed 79.0 is no 79


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
