"""Hostile files: whatever they hold, they end as a SpecError soon and in little memory, in a process that has no more."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from examples import MINI

CPU_S = 20  # far more than any of these takes, and far less than what they would take unbounded
MEMORY_BYTES = 1 << 30

_READ_ALL = """
import json, re, sys
from vitscope.errors import VitscopeError
from vitscope.spec import load_spec
for name in sys.argv[1:]:
    try:
        load_spec(name)
        print(name, "read")
    except VitscopeError as error:
        lines = str(error).splitlines()
        assert 0 < len(lines) <= 101 and all(line.isprintable() and len(line) < 2000 for line in lines), name
        print(name, "refused")
"""


def _laughs(inner: str, layer: Callable[[int], str]) -> str:
    return f"a0: &a0 {inner}\n" + "".join(f"a{i}: &a{i} {layer(i - 1)}\n" for i in range(1, 30))


STAGE = "&s {depth: 512, width: 16, blocks: [stride_attention*512], expansion: [" + ", ".join(["4"] * 512) + "]}"
FILES = {
    "laughs_of_lists": _laughs("[x, x]", lambda i: f"[{', '.join([f'*a{i}'] * 9)}]"),
    "laughs_of_mappings": _laughs("{x: 1}", lambda i: f"{{{', '.join(f'k{j}: *a{i}' for j in range(9))}}}"),
    "laughs_of_merges": _laughs("{x: 1}", lambda i: f"{{<<: [{', '.join([f'*a{i}'] * 9)}]}}"),
    "laughs_of_empty_merges": _laughs("{}", lambda i: f"{{<<: [{', '.join([f'*a{i}'] * 9)}]}}"),
    "long_chain_of_aliases": "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 5000)),
    "long_chain_of_merges": "a0: &a0 {}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}}}\n" for i in range(1, 5000)),
    "one_big_value_many_times": f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 9000)}]\n",
    "many_open_lists": "[" * 900_000,
    "many_open_mappings": "{" * 900_000,
    "many_open_keys": "? " * 450_000,
    "many_dashes": "- " * 450_000,
    "many_quotes": "'" * 900_000,
    "many_anchors": "".join(f"- &a{i} x\n" for i in range(60_000)),
    "many_unknown_keys": "".join(f"key_{i}: 1\n" for i in range(19_000)),
    "many_equal_keys": "a: 1\n" * 19_000,
    "many_traps": f"a: [{', '.join(['on'] * 19_000)}]",
    "one_long_key": "a" * 1000 + ": 1\n" + "b" * 900_000,
    "one_long_number": "a: " + "9" * 900_000,
    "one_long_float": "a: 0." + "9" * 900_000,
    "one_long_name": f"name: {'n' * 900_000}",
    "one_long_tag": f"a: !{'t' * 900_000} x",
    "one_long_comment": "#" * 900_000,
    "long_run_of_blanks": "a:" + " " * 900_000,
    "many_lines": "\n" * 900_000,
    "ten_megabytes": "a: b\n" * 2_500_000,
    "long_name_of_a_kind": MINI.replace("block: ffn}", f"block: {'f' * 500_000}}}"),
    "long_repeat": MINI.replace("ffn*2", f"ffn*{'9' * 500_000}"),
    "long_base": f"extends: {'x' * 500_000}",
    "very_many_blocks_that_do_not_fit": MINI.replace("  - {depth: 2", f"  - {STAGE}\n" + "  - *s\n" * 60 + "  - {depth: 2")
    .replace("[3, 64, 64]", "[3, 133, 133]"),
    "wide_base": "a: {" + ", ".join(f"k{i}: 1" for i in range(9000)) + "}\n",
    "wide_variant": "extends: wide_base.yaml\na: {" + ", ".join(f"j{i}: 1" for i in range(9000)) + "}\n",
    "huge_input": MINI.replace("[3, 64, 64]", "[16384, 16384, 16384]"),
    "huge_widths": MINI.replace("16", "65536").replace("32", "65536").replace("classes: 10", "classes: 10000000"),
}  # fmt: skip
READ = {"huge_widths"}  # large, but an architecture: what flows through it is known without making it


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each file, in one process with little time and little memory."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    package = Path(__file__).parents[2]
    command = [sys.executable, "-c", _READ_ALL, *(f"{name}.yaml" for name in FILES)]
    result = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(package)}, preexec_fn=limit, capture_output=True, text=True
    )
    assert result.returncode == 0, f"after {result.stdout.splitlines()[-1:]}: {result.stderr[-2000:]}"
    return dict(line.split() for line in result.stdout.splitlines())


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_within_time_and_memory(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[f"{name}.yaml"] == ("read" if name in READ else "refused")


def test_a_chain_of_wide_bases_is_merged_in_time(tmp_path: Path) -> None:
    for i in range(17):
        base = f"extends: link{i - 1}.yaml\n" if i else ""
        keys = ", ".join(f"k{i}_{j}: 1" for j in range(9000))
        (tmp_path / f"link{i}.yaml").write_text(f"{base}a: {{{keys}}}\n")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))

    result = subprocess.run(
        [sys.executable, "-c", _READ_ALL, "link16.yaml"], cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=limit, capture_output=True, text=True,
    )  # fmt: skip
    assert result.stdout == "link16.yaml refused\n", result.stderr[-2000:]


def test_reading_the_zoo_imports_no_torch() -> None:
    code = (
        "import json, sys\nfrom vitscope.spec import load_spec\nfrom vitscope.spec.zoo import zoo_names\n"
        "names = [load_spec(name).name for name in zoo_names()]\n"
        "print(json.dumps([names, [m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'typer', 'rich') if m in sys.modules]]))"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    names, heavy = json.loads(result.stdout)
    assert len(names) > 10 and heavy == []
