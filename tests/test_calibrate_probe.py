"""Probes: the small networks that are timed hold the kernels that they were made for, as a runtime's rules see them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from vitscope.calibrate.demand import bare, demand, kernels_of, rough_s
from vitscope.calibrate.probe import Probe, probe_of
from vitscope.export.cache import written
from vitscope.latency.class_cost import class_of
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import load_runtime
from vitscope.measure.runtimes import RUNTIMES
from vitscope.profile import deploy_graphs
from vitscope.spec import load_spec
from vitscope.subject import subject_of

RULES = load_runtime("onnxruntime")
NETWORKS = ("efficientformerv2_s0", "mobilevit_xxs", "efficientvit_b0", "edgenext_xx_small", "efficientnet_b0")


@pytest.fixture(scope="module")
def kernels() -> list[Kernel]:
    """The kernels of five families, each once."""
    return [each.kernel for each in demand(kernels_of(NETWORKS, RULES))]


@pytest.fixture(scope="module")
def probes(kernels: list[Kernel]) -> list[tuple[Kernel, Probe | None]]:
    """One kernel of each class and shape of work."""
    seen: dict[tuple[str, bool], Kernel] = {}
    for kernel in kernels:
        size = kernel.geometry
        assert size is not None
        seen.setdefault((class_of(kernel), size.in_channels == size.out_channels), kernel)
    return [(kernel, probe_of(kernel, RULES)) for kernel in seen.values()]


def test_most_of_the_time_of_networks_is_in_kernels_that_can_be_timed(kernels: list[Kernel]) -> None:
    """Reordering of channels is at both ends of every convolution's probe, and needs none of its own."""
    some = [kernel for kernel in kernels if kernel.main != "reorder"][::3]
    missing = sum(rough_s(kernel) for kernel in some if probe_of(kernel, RULES) is None)
    assert missing < 0.05 * sum(map(rough_s, some))


def test_a_probe_holds_the_kernel_with_its_very_sizes(probes: list[tuple[Kernel, Probe | None]]) -> None:
    made = [(kernel, probe) for kernel, probe in probes if probe is not None]
    assert len({class_of(kernel) for kernel, _ in made}) >= 10
    for kernel, probe in made:
        found = [k for k in probe.kernels if class_of(k) == class_of(kernel) and k.writes == kernel.writes]
        assert kernel.macs in {k.macs for k in found}, probe.name


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize(
    "name",
    ["conv", "depthwise", "depthwise strided", "pointwise", "elementwise", "elementwise broadcast",
     "reduce map", "pool avg_pool2d", "linear row"],
)  # fmt: skip
def test_a_runtime_runs_what_the_rules_say_of_a_probe(runtime: str, name: str, tmp_path: Path) -> None:
    """No layout is changed, and no map padded, that the times of a probe would be taken to be the kernel's: counted in the
    runtime's own profile."""
    rules = load_runtime(runtime)
    some = demand(kernels_of(("mobilenetv3_large_100", "poolformer_s12", "efficientformerv2_s0"), rules))
    probe = next(made for each in some if class_of(each.kernel) == name and (made := probe_of(each.kernel, rules)))
    artifact = written(subject_of(probe.module, probe.size), RUNTIMES[runtime].format, "fp32", tmp_path)
    options = {"threads": 1, "input_shape": [*artifact.input_shape], "precision": "fp32", "names": [*artifact.scopes]}
    adapter = import_module(f"vitscope.measure.runner.{runtime}_cpu")
    _, told = adapter.load(str(artifact.path), options).op_times(5)
    ran = [op["kind"] for op in told if op["kind"] != "Static Reshape"]
    assert abs(len(ran) - len(probe.kernels)) <= 1, Counter(ran)  # the last map may be given back otherwise


def test_a_probe_runs_and_gives_finite_numbers(probes: list[tuple[Kernel, Probe | None]]) -> None:
    for kernel, probe in probes:
        if probe is not None and rough_s(kernel) < 3e-3:
            with torch.no_grad():
                output = probe.module(torch.randn(1, *probe.size, generator=torch.Generator().manual_seed(0)))
            assert torch.isfinite(output).all(), probe.name


def test_copies_have_weights_of_their_own(kernels: list[Kernel]) -> None:
    square = next(k for k in kernels if k.kind == "pointwise" and k.geometry and k.geometry.in_channels == 96)
    probe = probe_of(square, RULES)
    assert probe is not None and probe.copies > 1
    weights = [p for p in probe.module.parameters() if p.dim() == 4]
    assert len(weights) >= probe.copies and not torch.equal(weights[0], weights[-1])


def test_sizes_that_change_are_undone_by_a_kernel_of_the_same_work(kernels: list[Kernel]) -> None:
    """An expansion is followed by the projection back: both have the same MACs, so their sum is twice each."""
    wide = next(
        k for k in kernels if k.kind == "pointwise" and k.geometry and k.geometry.out_channels > k.geometry.in_channels
    )
    probe = probe_of(wide, RULES)
    assert probe is not None
    own = [k for k in probe.kernels if k.kind == "pointwise" and k.geometry and k.geometry.in_channels != 3]
    assert {k.macs for k in own} == {wide.macs}


def test_products_are_made_of_the_narrower_side(kernels: list[Kernel]) -> None:
    """What comes in is copied, and scores are as much as some of the products themselves; and it is read by the chain alone,
    but for the number that keys are made with: XNNPACK copies what two read to renumber its axes."""
    wide = max((k for k in kernels if k.kind == "matmul" and k.geometry), key=lambda k: k.reads)
    probe = probe_of(wide, RULES)
    assert probe is not None and wide.geometry is not None
    assert probe.size[-1] == min(wide.geometry.in_channels, wide.geometry.out_channels)
    keys = list(probe.module.parameters())
    assert len(keys) == probe.copies // 2 and not torch.equal(keys[0], keys[-1])


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert", "executorch"])
@pytest.mark.parametrize("network", ["edgenext_xx_small", "mobilevitv2_050"])
def test_norms_of_vectors_and_sums_and_means_of_norms_can_be_built(runtime: str, network: str) -> None:
    rules = load_runtime(runtime)
    some = [each.kernel for each in demand(kernels_of((network,), rules))]
    kernels = [k for k in some if k.kind == "reduce" or k.main == "linalg_vector_norm"]
    assert kernels and all(probe_of(kernel, rules) for kernel in kernels)


def test_what_cannot_be_built_alone_is_none(kernels: list[Kernel]) -> None:
    assert probe_of(replace(kernels[0], geometry=None), RULES) is None
    assert probe_of(replace(kernels[0], kind="gather"), RULES) is None
    size = kernels[0].geometry
    assert size is not None
    assert probe_of(replace(kernels[0], kind="conv", geometry=replace(size, groups=7, in_channels=10)), RULES) is None


def test_the_demand_of_a_network_is_its_kernels() -> None:
    """Each network weighs one; a kernel says which families have it."""
    found = demand(kernels_of(NETWORKS, RULES))
    assert sum(each.weight for each in found) == pytest.approx(len(NETWORKS))
    assert [each.weight for each in found] == sorted((each.weight for each in found), reverse=True)
    spec = load_spec("mobilevit_xxs")
    own = Counter(bare(k) for graph in deploy_graphs(spec) for k in lower(graph, RULES))
    assert set(own) == {each.kernel for each in found if spec.family in each.families}
