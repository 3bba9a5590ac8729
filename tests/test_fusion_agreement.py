"""The rules against the runtimes: recorded for one network of every family, and live for a small one on each runtime.

The recording is what `python -m benchmarks.fusion_agreement --record` wrote of real runs; the live tests keep it true.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import pytest

from benchmarks.fusion_agreement import Agreement, compare, kernels_of, rules_of, table
from benchmarks.fusion_dump import Ran, ran
from vitscope.latency.kernels import Kernel
from vitscope.spec.load import at_resolution, load_spec

RECORDED = Path(__file__).parent / "recorded" / "fusion.json.gz"
# Least share of a runtime's kernels that the rules have, and of the rules' kernels that it ran: over all recordings.
LEAST = {
    "onnxruntime": (0.97, 0.97), "openvino": (0.95, 0.96), "litert": (0.96, 0.98), "executorch": (0.94, 0.99),
    "coreml": (0.78, 0.99), "eager": (0.99, 0.99),
}  # fmt: skip
SIDE = 128  # pixels; at 64 some tokens of MobileViT stand alone, and ONNX Runtime transposes one all the same
LEAST_OF_ONE = 0.75  # but for Core ML, whose program spells out what a kernel on the device may do at once


@cache
def recorded() -> dict[str, list[Ran]]:
    known = json.loads(gzip.decompress(RECORDED.read_bytes()))
    return {key: [Ran(kind, tuple(scopes), "") for kind, scopes in told] for key, told in known.items()}


@pytest.mark.parametrize("runtime", LEAST)
def test_the_rules_give_what_the_runtime_ran_over_the_families(runtime: str):
    found: dict[str, Agreement] = {}
    for key, told in recorded().items():
        name, _, of = key.partition(" ")
        if of == runtime:
            found[name] = compare(told, kernels_of(load_spec(name), rules_of(runtime)), runtime)
    assert found
    matched = sum(each.matched for each in found.values())
    of_ran = matched / sum(each.ran for each in found.values())
    of_rules = matched / sum(each.rules for each in found.values())
    assert of_ran >= LEAST[runtime][0] and of_rules >= LEAST[runtime][1], (of_ran, of_rules)
    if runtime != "coreml":
        worst = {
            name: each
            for name, each in found.items()
            if min(each.matched / each.ran, each.matched / each.rules) < LEAST_OF_ONE
        }
        assert not worst


def test_every_family_is_recorded_on_the_runtimes_of_onnx_files():
    for runtime in ("onnxruntime", "openvino"):
        assert sum(key.endswith(runtime) for key in recorded()) >= 20


@pytest.mark.parametrize(
    ("runtime", "package", "name"),
    [
        ("onnxruntime", "onnxruntime", "mobilevit_xxs"),
        ("openvino", "openvino", "mobilenetv2_100"),  # its clock leaves out what takes less than a microsecond
        ("litert", "ai_edge_litert", "mobilenetv2_100"),
        ("executorch", "executorch", "mobilenetv2_100"),
        ("coreml", "coremltools", "mobilenetv2_100"),
        ("eager", "torch", "mobilevit_xxs"),
    ],
)
def test_the_runtime_that_is_here_runs_these_kernels(runtime: str, package: str, name: str):
    pytest.importorskip(package)
    from vitscope.subject import load_subject

    told = ran(load_subject(name, resolution=(SIDE, SIDE)), runtime)
    spec = at_resolution(load_spec(name), SIDE, SIDE)
    found = compare(told, kernels_of(spec, rules_of(runtime)), runtime)
    assert found.matched / found.ran >= 0.95 and found.matched / found.rules >= 0.95, found


# ---- the comparison itself ----


def kernel(kind: str, *scopes: str) -> Kernel:
    return Kernel(kind, scopes[0], 0, 1, 0, 1, 1, ("x",), "x", scopes=scopes)  # type: ignore[arg-type]


def test_a_pair_is_of_one_kind_and_shares_a_module():
    told = [Ran("Conv", ("a.conv",), ""), Ran("Gelu", ("a.act",), ""), Ran("Add", ("b",), "")]
    rules = [kernel("pointwise", "a.conv", "a.act"), kernel("activation", "a.act"), kernel("copy", "b")]
    found = compare(told, rules, "onnxruntime")
    assert (found.ran, found.rules, found.matched, found.near) == (3, 3, 2, 0)
    assert found.only_ran == {"Add": 1} and found.only_rules == {"copy: x": 1}


def test_each_kernel_is_paired_once_and_parents_count_as_near():
    told = [Ran("Conv", ("a.act",), ""), Ran("Conv", ("a.conv",), ""), Ran("Conv", ("c.conv",), "")]
    found = compare(told, [kernel("conv", "a.conv"), kernel("conv", "a.conv")], "onnxruntime")
    assert (found.matched, found.near, found.only_ran) == (2, 1, {"Conv": 1})


def test_a_word_that_is_not_known_is_left_over():
    found = compare([Ran("Mystery", ("a",), "")], [kernel("conv", "a")], "onnxruntime")
    assert (found.matched, found.only_ran) == (0, {"Mystery": 1})


def test_the_table_states_shares_and_leftovers():
    row = {
        "name": "mobilenetv2_100", "runtime": "onnxruntime", "ran": 10, "rules": 8, "matched": 8, "near": 2,
        "only_ran": {"Add": 2}, "only_rules": {},
    }  # fmt: skip
    text = table([row, {"name": "resnet50", "runtime": "onnxruntime", "refused": "no form"}])
    assert "| onnxruntime | 1.31 | 1 | 10 | 80.0% | 8 | 100.0% | 25.0% |" in text
    assert "only the runtime has: Add 2 (most in mobilenetv2_100)" in text
    assert "| mobilenetv2_100 | 80 % / 100 % |" in text and "- resnet50, onnxruntime: no form" in text
