"""YAML text → plain data with the position of every key and value; bounded in size, depth and aliases.

Scalars follow YAML 1.2: `1e-5` is a number, and `on`, `yes`, `1:30`, `0x10` or `010`, which YAML 1.1 readers turn into
something else than what stands there, are errors rather than surprises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from vitscope.errors import SpecError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
# Read as something else by YAML 1.1: booleans, octal, hexadecimal, sexagesimal, digit groups, dates.
_TRAPS = {
    "a boolean": re.compile(r"(?i:y|n|yes|no|on|off)$|TRUE$|FALSE$|True$|False$"),
    "an octal number": re.compile(r"[-+]?0o?[0-7]+$"),
    "a hexadecimal number": re.compile(r"[-+]?0x[0-9a-fA-F]+$"),
    "a number of base 60": re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+$"),
    "a number with digit groups": re.compile(r"[-+]?[0-9]+(_[0-9]+)+$"),
    "a date": re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$"),
    "a number that is not finite": re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, one-based. `line` 0 means that the text has no lines (a --set option)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(slots=True)
class Document:
    """Plain data and, for each path into it, where its key and its value stand."""

    data: Any
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)

    def mark(self, path: Path) -> Mark:
        """The nearest known place of the value at `path`: its own, or that of what contains it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key_mark(self, path: Path) -> Mark:
        """The place of the key at `path`, or of its value where it has no key of its own."""
        return self.keys.get(path) or self.mark(path)


@dataclass(slots=True)
class _Node:
    """A node under construction: a scalar's value, a list of nodes, or a dict of key → (key's mark, node)."""

    value: Any
    mark: Mark
    is_open: bool = False
    pending: tuple[Any, Mark] | None = None  # a mapping's key that waits for its value


def read_yaml(text: str, source: str) -> Document:
    """Parse one YAML document. Raises SpecError with every duplicate key and trap, or with the first syntax error."""
    if len(text) > MAX_BYTES:
        raise SpecError([f"{source}: {len(text):,} characters, a spec has at most {MAX_BYTES:,}"])
    problems: list[str] = []
    root = _build(text, source, problems)
    if root is None:
        raise SpecError([*problems, f"{source}: empty file, expected a spec with name, input, stem, stages and head"])
    document = Document(None)
    budget = [MAX_NODES]
    document.data = _plain(root, (), document, budget, source)
    if problems:
        raise SpecError(problems)
    return document


def _build(text: str, source: str, problems: list[str]) -> _Node | None:
    """Nodes from parser events. Iterative, so that a deeply nested file meets MAX_DEPTH and not the stack."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stack: list[_Node] = []
    anchors: dict[str, _Node] = {}
    root: _Node | None = None
    documents = 0
    num_events = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            num_events += 1
            if num_events > 2 * MAX_NODES:
                raise SpecError([f"{source}: more than {MAX_NODES:,} values, too large for a spec"])
            mark = Mark(source, event.start_mark.line + 1, event.start_mark.column + 1)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise SpecError([f"{mark}: a second document starts here, expected one spec a file"])
                continue
            if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                stack.pop().is_open = False
                continue
            if isinstance(event, yaml.AliasEvent):
                node = anchors.get(event.anchor)
                if node is None:
                    raise SpecError([f"{mark}: alias *{event.anchor} has no anchor &{event.anchor} before it"])
                if node.is_open:
                    raise SpecError([f"{mark}: alias *{event.anchor} contains itself"])
            elif isinstance(event, yaml.ScalarEvent):
                plain = event.style is None or event.style == ""
                if event.tag is not None and event.tag != "!":
                    problems.append(f"{mark}: tag {event.tag} is not allowed in a spec")
                node = _Node(_scalar(event.value, mark, problems) if plain else event.value, mark)
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                if event.tag is not None:
                    problems.append(f"{mark}: tag {event.tag} is not allowed in a spec")
                node = _Node([] if isinstance(event, yaml.SequenceStartEvent) else {}, mark, is_open=True)
            else:
                continue
            if isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.AliasEvent) and event.anchor:
                anchors[event.anchor] = node
            if stack:
                _attach(stack[-1], node, problems)
            else:
                root = node
            if node.is_open:
                stack.append(node)
                if len(stack) > MAX_DEPTH:
                    raise SpecError([f"{mark}: nested more than {MAX_DEPTH} levels deep"])
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = f"{source}:{place.line + 1}:{place.column + 1}" if place else source
        context = f" {error.context}" if error.context else ""
        hint = " (indent with spaces, not tabs)" if "\\t" in str(error.problem) or "\t" in str(error.problem) else ""
        raise SpecError([*problems, f"{where}: not valid YAML: {error.problem}{context}{hint}"]) from None
    except yaml.YAMLError as error:  # a control character, reported without a line
        raise SpecError([*problems, f"{source}: not valid YAML: {' '.join(str(error).split())}"]) from None
    return root


def _attach(parent: _Node, node: _Node, problems: list[str]) -> None:
    if isinstance(parent.value, list):
        parent.value.append(node)
    elif parent.pending is None:
        if isinstance(node.value, (list, dict)):
            problems.append(f"{node.mark}: a list or mapping cannot be a key")
            parent.pending = (f"?{node.mark.line}:{node.mark.column}", node.mark)
        else:
            parent.pending = (node.value if isinstance(node.value, int) else str(node.value), node.mark)
    else:
        key, mark = parent.pending
        parent.pending = None
        if key == "<<":  # merge keys: each gives what the mapping itself does not
            parent.value.setdefault("<<", (mark, _Node([], mark)))[1].value.append(node)
        elif key in parent.value:
            first = parent.value[key][0]
            problems.append(f"{mark}: duplicate key {key!r}, first given at line {first.line}")
        else:
            parent.value[key] = (mark, node)


def _scalar(text: str, mark: Mark, problems: list[str]) -> Any:
    """A plain scalar by YAML 1.2's core schema; a YAML 1.1 trap is a problem, not a guess."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INT.match(text):
        if len(text) > 18:
            problems.append(f"{mark}: {text[:20]}… is too large a number")
            return 0
        return int(text)
    for what, pattern in _TRAPS.items():
        if pattern.match(text):
            cure = "write true or false" if what == "a boolean" else "write it in plain decimal digits"
            problems.append(f"{mark}: some YAML readers take {text} for {what}: {cure}, or quote it as text")
            return text
    if _FLOAT.match(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            problems.append(f"{mark}: {text} is too large a number")
            return 0.0
        return value
    return text


def _plain(node: _Node, path: Path, document: Document, budget: list[int], source: str) -> Any:
    """Unfold nodes (aliases included) into data, recording positions; `budget` bounds what aliases can multiply."""
    budget[0] -= 1
    if budget[0] < 0:
        raise SpecError([f"{source}: more than {MAX_NODES:,} values once aliases are followed, too large for a spec"])
    if len(path) > MAX_DEPTH:
        raise SpecError([f"{node.mark}: nested more than {MAX_DEPTH} levels deep once aliases are followed"])
    document.values[path] = node.mark
    if isinstance(node.value, list):
        return [_plain(item, (*path, i), document, budget, source) for i, item in enumerate(node.value)]
    if isinstance(node.value, dict):
        data = {}
        for key, (mark, item) in _merged(node, budget, source).items():
            document.keys[(*path, key)] = mark
            data[key] = _plain(item, (*path, key), document, budget, source)
        return data
    return node.value


def _merged(node: _Node, budget: list[int], source: str) -> dict[Any, tuple[Mark, _Node]]:
    """A mapping's entries with those of its merge keys (`<<: *base`) under them."""
    entries = dict(node.value)
    if "<<" not in entries:
        return entries
    _, merges = entries.pop("<<")
    for merge in merges.value:
        for base in merge.value if isinstance(merge.value, list) else [merge]:
            if not isinstance(base.value, dict):
                raise SpecError([f"{base.mark}: << merges mappings only"])
            budget[0] -= len(base.value)
            if budget[0] < 0:
                raise SpecError([f"{source}: more than {MAX_NODES:,} values once aliases are followed"])
            for key, entry in _merged(base, budget, source).items():
                entries.setdefault(key, entry)
    return entries
