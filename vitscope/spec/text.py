"""YAML text → plain data with the position of every key and value; bounded in size, depth and aliases.

Scalars follow YAML 1.2: `1e-5` is a number, and `on`, `yes`, `1:30`, `0x10` or `010`, which YAML 1.1 readers turn into
something else than what stands there, are errors rather than surprises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from vitscope.errors import SpecError
from vitscope.spec.syntax import explain_syntax
from vitscope.spec.wording import printable, shown

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32
MAX_PROBLEMS = 100

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_PLAIN_DIGITS = "write it in plain decimal digits, or quote it as text"
# Read as something else by YAML 1.1: what, its form, and the cure.
_TRAPS = (
    ("a boolean", re.compile(r"(?i:y|n|yes|no|on|off)$|TRUE$|FALSE$|True$|False$"),
     "write true or false, or quote it as text"),
    ("no value", re.compile(r"Null$|NULL$"), "write null, or quote it as text"),
    ("an octal number", re.compile(r"[-+]?0o?[0-9]+$"), _PLAIN_DIGITS),
    ("a hexadecimal number", re.compile(r"[-+]?0x[0-9a-fA-F]+$"), _PLAIN_DIGITS),
    ("a number of base 60", re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+$"), _PLAIN_DIGITS),
    ("a number with digit groups", re.compile(r"[-+]?[0-9]+(_[0-9]+)+$"), _PLAIN_DIGITS),
    ("a date", re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$"), "quote it as text"),
    ("a number that is not finite", re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
     "write a finite number, or quote it as text"),
)  # fmt: skip
# What YAML does not allow in a text at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, one-based. `line` 0 means that the text has no lines (a --set option)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        source = printable(self.source)
        return f"{source}:{self.line}:{self.column}" if self.line else source


@dataclass(slots=True)
class Document:
    """Plain data; for each path into it, where its key and its value stand; and what was found wrong so far."""

    data: Any
    sources: list[str]  # the file itself, then what it extends
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    problems: dict[tuple[Mark, str], None] = field(default_factory=dict)  # a set that keeps its order
    options: list[str] = field(default_factory=list)  # what was set from outside, in its order

    def mark(self, path: Path) -> Mark:
        """The nearest known place of the value at `path`: its own, or that of what contains it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key_mark(self, path: Path) -> Mark:
        """The place of the key at `path`, or of its value where it has no key of its own."""
        return self.keys.get(path) or self.mark(path)

    def problem(self, mark: Mark, text: str) -> None:
        """Note something wrong; after very many, give up."""
        self.problems[mark, text] = None
        if len(self.problems) >= MAX_PROBLEMS:
            self.fail(Mark(self.sources[0]), f"{MAX_PROBLEMS} problems found, and looked no further")

    def fail(self, mark: Mark, text: str) -> NoReturn:
        """Raise everything found so far, and this, after which there is nothing left to check."""
        raise SpecError([*self.lines(), f"{mark}: {text}"])

    def check(self) -> None:
        """Raise everything found so far, if anything."""
        if self.problems:
            raise SpecError(self.lines())

    def lines(self) -> Iterator[str]:
        """One line a problem: options first, then the file from its top, then what it extends."""
        rank = {source: i for i, source in enumerate([*self.options, *self.sources])}

        def place(problem: tuple[Mark, str]) -> tuple[int, int, int]:
            mark, _ = problem
            return (rank.get(mark.source, -1), mark.line, mark.column)

        return (f"{mark}: {text}" for mark, text in sorted(self.problems, key=place))


@dataclass(slots=True)
class _Node:
    """A node under construction: a scalar's value, a list of nodes, or a dict of key → (key's mark, node)."""

    value: Any
    mark: Mark
    is_open: bool = False
    pending: tuple[Any, Mark] | None = None  # a mapping's key that waits for its value
    merges: list[_Node] = field(default_factory=list)  # what a mapping takes in by `<<`


_MERGE = object()  # the key `<<`
_NO_KEY = object()  # a key that cannot be one; its value is dropped


def read_yaml(text: str, source: str, expected: str = "a spec with name, input, stem, stages and head") -> Document:
    """Parse one YAML document, which should be `expected`.

    Traps and duplicate keys are noted in its `problems`. Raises SpecError for broken syntax and for what is too large.
    """
    document = Document(None, [source])
    nowhere = Mark(source)
    if len(text) > MAX_BYTES:
        document.fail(nowhere, f"{len(text):,} characters, a spec has at most {MAX_BYTES:,}")
    if bad := _FORBIDDEN.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        what = printable(bad[0]) if bad[0] != "\0" else "zero byte"
        document.fail(Mark(source, line, column), f"a {what} cannot stand in YAML")
    root = _Composer(document).compose(text.removeprefix("\ufeff"))
    if root is None:
        document.fail(nowhere, f"empty, expected {expected}")
    document.data = _plain(root, (), document, [MAX_NODES])
    return document


class _Composer:
    """Nodes from parser events. Keeps its own stack, so that a deeply nested file meets MAX_DEPTH, not Python's."""

    def __init__(self, document: Document):
        self.document = document
        self.source = document.sources[0]
        self.stack: list[_Node] = []
        self.anchors: dict[str, _Node] = {}
        self.root: _Node | None = None

    def compose(self, text: str) -> _Node | None:
        """The root node of `text`, None when there is none."""
        documents = 0
        num_events = 0
        try:
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                num_events += 1
                mark = Mark(self.source, event.start_mark.line + 1, event.start_mark.column + 1)
                if num_events > 2 * MAX_NODES:
                    self.document.fail(mark, f"more than {MAX_NODES:,} values, too large for a spec")
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.document.fail(mark, "a second document starts here, expected one spec a file")
                elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                    self.stack.pop().is_open = False
                elif isinstance(event, yaml.NodeEvent):
                    is_merge = isinstance(event, yaml.ScalarEvent) and not event.style and event.value == "<<"
                    self._place(self._node(event, mark), is_merge)
        except yaml.YAMLError as error:
            line, column, what = explain_syntax(error, text)
            self.document.fail(Mark(self.source, line, column), f"not valid YAML: {what}")
        return self.root

    def _node(self, event: yaml.NodeEvent, mark: Mark) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            node = self.anchors.get(event.anchor)
            if node is None:
                self.document.fail(mark, f"alias *{event.anchor} has no anchor &{event.anchor} before it")
            if node.is_open:
                self.document.fail(mark, f"alias *{event.anchor} contains itself")
            return node
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            self.document.problem(mark, f"tag {shown(tag)} is not allowed in a spec")
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(event.value if event.style else self._scalar(event.value, mark), mark)
        else:
            node = _Node([] if isinstance(event, yaml.SequenceStartEvent) else {}, mark, is_open=True)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _expects_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].pending is None

    def _place(self, node: _Node, is_merge: bool) -> None:
        """Hang `node` into what is open, and open it if it is a collection."""
        if not self.stack:
            self.root = node
        elif isinstance(self.stack[-1].value, list):
            self.stack[-1].value.append(node)
        elif self._expects_key():
            self.stack[-1].pending = (_MERGE if is_merge else self._key(node), node.mark)
        else:
            self._entry(self.stack[-1], node)
        if node.is_open:
            self.stack.append(node)
            if len(self.stack) > MAX_DEPTH:
                self.document.fail(node.mark, f"nested more than {MAX_DEPTH} levels deep")

    def _key(self, node: _Node) -> Any:
        key = node.value
        if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
            return key  # a whole number is an index into a list
        if isinstance(key, (list, dict)):
            self.document.problem(node.mark, "a list or mapping cannot be a key")
        else:
            self.document.problem(node.mark, f"{shown(key)} cannot be a key, expected a word")
        return _NO_KEY

    def _entry(self, parent: _Node, node: _Node) -> None:
        assert parent.pending is not None
        key, mark = parent.pending
        parent.pending = None
        if key is _MERGE:
            parent.merges.append(node)
        elif key in parent.value:
            first = parent.value[key][0]
            self.document.problem(mark, f"duplicate key {shown(key)}, first given at line {first.line}")
        elif key is not _NO_KEY:
            parent.value[key] = (mark, node)

    def _scalar(self, text: str, mark: Mark) -> Any:
        """A plain scalar by YAML 1.2's core schema; a YAML 1.1 trap is a problem, not a guess."""
        if text in ("", "~", "null"):
            return None
        if text in ("true", "false"):
            return text == "true"
        if _INT.match(text):
            if len(text) > 18:
                self.document.problem(mark, f"{text[:20]}… is too large a number")
                return 0
            return int(text)
        if len(text) <= 64:
            for what, pattern, cure in _TRAPS:
                if pattern.match(text):
                    self.document.problem(mark, f"some YAML readers take {text} for {what}: {cure}")
                    return text
        if _FLOAT.match(text):
            value = float(text)
            if value in (float("inf"), float("-inf")):
                self.document.problem(mark, f"{text[:20]} is too large a number")
                return 0.0
            return value
        return text


def _plain(node: _Node, path: Path, document: Document, budget: list[int]) -> Any:
    """Unfold nodes (aliases included) into data, recording positions; `budget` bounds what aliases can multiply."""
    _spend(budget, 1, document)
    if len(path) > MAX_DEPTH:
        document.fail(node.mark, f"nested more than {MAX_DEPTH} levels deep once aliases are followed")
    document.values[path] = node.mark
    if isinstance(node.value, list):
        return [_plain(item, (*path, i), document, budget) for i, item in enumerate(node.value)]
    if isinstance(node.value, dict):
        data = {}
        for key, (mark, item) in _merged(node, document, budget, 0).items():
            document.keys[(*path, key)] = mark
            data[key] = _plain(item, (*path, key), document, budget)
        return data
    return node.value


def _merged(node: _Node, document: Document, budget: list[int], depth: int) -> dict[Any, tuple[Mark, _Node]]:
    """A mapping's entries with those of its merge keys (`<<: *base`) under them."""
    if not node.merges:
        return node.value
    if depth > MAX_DEPTH:
        document.fail(node.mark, f"merge keys more than {MAX_DEPTH} levels deep")
    entries = dict(node.value)
    for merge in node.merges:
        for base in merge.value if isinstance(merge.value, list) else [merge]:
            if not isinstance(base.value, dict):
                document.problem(base.mark, "<< merges mappings only")
                continue
            _spend(budget, 1 + len(base.value), document)
            for key, entry in _merged(base, document, budget, depth + 1).items():
                entries.setdefault(key, entry)
    return entries


def _spend(budget: list[int], amount: int, document: Document) -> None:
    budget[0] -= amount
    if budget[0] < 0:
        document.fail(
            Mark(document.sources[0]), f"more than {MAX_NODES:,} values once aliases are followed, too large for a spec"
        )
