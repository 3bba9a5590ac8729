"""How wrong a calibrated device is about whole networks, which its calibration never timed; and baselines beside it.

    vitscope calibrate --runtime onnxruntime -o benchmarks/calibration/onnxruntime.yaml
    python -m benchmarks.calibration [--runtimes onnxruntime,litert,executorch] [--measure]

`--measure` times the networks (`vitscope measure`, into benchmarks/calibration/networks.csv; goes on where it stopped):
on the same day as the calibration, since a shared machine is another one tomorrow. The rest reads: it predicts every
network twice, by the calibration, and by one that has not seen a kernel of the network's family; then by what others do,
fitted on the very networks and judged leaving families out. Writes calibration.md, and plots/calibrated_RUNTIME.svg.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.host_latency import NETWORKS as ZOO
from vitscope.calibrate.correction import residuals
from vitscope.calibrate.demand import bare
from vitscope.calibrate.fit import fit
from vitscope.calibrate.record import Timed
from vitscope.calibrate.refine import Whole, leave_families_out
from vitscope.calibrate.times import read_timed
from vitscope.latency.class_cost import PRODUCTS, ClassCosts, class_of
from vitscope.latency.device import Device, load_device
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import FusionRules
from vitscope.latency.score import HeldOutNetwork, Score, score, wilson
from vitscope.latency.table import NetworkId
from vitscope.plot.agreement import Pair, agreement, draw_agreement
from vitscope.plot.figure import FORMS
from vitscope.units import milliseconds, percent

HERE = Path(__file__).parent
FOLDER, PLOTS = HERE / "calibration", HERE.parent / "plots"
ROWS, TABLE = FOLDER / "networks.csv", HERE / "calibration.md"
RUNTIMES = ("onnxruntime", "litert", "executorch")
TIMM = {
    "timm:convnext_atto": "ConvNeXt", "timm:fbnetc_100": "FBNet", "timm:ghostnet_100": "GhostNet",
    "timm:hardcorenas_a": "HardCoReNAS", "timm:lcnet_100": "LCNet", "timm:mixnet_s": "MixNet",
    "timm:mnasnet_100": "MnasNet", "timm:mobilenetv3_small_100": "MobileNetV3", "timm:regnetx_004": "RegNet",
    "timm:regnety_004": "RegNet", "timm:repghostnet_100": "GhostNet", "timm:resnet18": "ResNet",
    "timm:semnasnet_100": "MnasNet", "timm:tinynet_a": "EfficientNet", "timm:visformer_tiny": "Visformer",
}  # fmt: skip
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Network:
    """A network that was timed: its kernels as the runtime runs them."""

    name: str
    family: str
    params: int
    macs: int
    kernels: tuple[Kernel, ...]
    measured_s: float
    half_interval: float  # half the 95 % interval, as a share


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--measure", action="store_true", help="time the networks first")
    parser.add_argument("--processes", default="3", help="fresh processes a row")
    parser.add_argument("--block", default="300ms", help="time of a block")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(exist_ok=True)
    if options.measure:
        command = [sys.executable, "-m", "vitscope", "measure", *ZOO, *TIMM, "--runtime", options.runtimes]
        command += ["--processes", options.processes, "--block", options.block, "--append", str(ROWS), "-o", "-"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    parts = [part for name in options.runtimes.split(",") if (part := page(name))]
    head = [
        "# Calibrated on this host, held against whole networks", "",
        "Written by `python -m benchmarks.calibration`. No network was timed for a calibration; "
        "`without its family` also leaves out every kernel that a network of its family has. The form of the cost was found "
        "while looking at errors of these networks, and at the runtimes' own profiles of some; no fit has seen one. Refined: "
        "only networks all of whose classes were timed.", "",
    ]  # fmt: skip
    TABLE.write_text("\n".join([*head, *parts]), encoding="utf-8")
    print(f"wrote {TABLE}", file=sys.stderr)


def page(runtime: str) -> str:
    """The part of one runtime; empty where it was not calibrated."""
    file = FOLDER / f"{runtime}.yaml"
    if not file.exists():
        return ""
    device = load_device(file)
    assert device.classes is not None
    timed = list({each.wanted: each for each in read_timed(FOLDER / f"{runtime}.times.jsonl")}.values())
    corrected = frozenset(device.classes.corrections)
    networks = measured(runtime, device.rules)
    floor = device.classes.floor_s
    results = {
        "calibrated": predictions(networks, lambda _: device.classes),
        "calibrated, without its family": predictions(networks, left_out(networks, timed, floor, corrected)),
        "the same, formula alone": predictions(networks, left_out(networks, timed, floor, frozenset())),
        "refined (two numbers) on whole networks of the other families": refined(networks, device.classes),
        "random forest on kernels (nn-Meter's manner)": forests(networks, timed, device.classes),
        "13 terms, non-negative, on whole networks": by_family(networks, thirteen_terms, additive),
        "MACs": by_family(networks, lambda n: [1.0, n.macs], additive),
        "parameters": by_family(networks, lambda n: [1.0, n.params], additive),
        "constant": by_family(networks, lambda _: [1.0], additive),
    }
    draw(runtime, device.runtime, networks, results["calibrated"])
    lines = [
        f"## {device.runtime}", "",
        f"{device.about}; fitted on {device.fitted_on}. {len(networks)} networks of "
        f"{len({n.family for n in networks})} families.", "",
        "| prediction | networks | mean error | median | within 5 % | within 10 % (95 % Wilson) | bias | Spearman | "
        "worst family |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for label, predicted in results.items():
        rows = held(networks, predicted)
        if len(rows) > 1:
            lines.append(_score_line(label, score(rows)))
    noise = sorted(n.half_interval for n in networks)
    lines += [
        "",
        f"Noise: half the 95 % interval of a measured row is {percent(noise[len(noise) // 2])} at the median and "
        f"{percent(noise[int(len(noise) * 0.9)])} for nine in ten. {_covered(device, networks, results['calibrated'])}", "",
        "| network | family | measured | calibrated | error | without its family | error |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    first, second = results["calibrated"], results["calibrated, without its family"]
    for network in sorted(networks, key=lambda n: (n.family, n.name)):
        cells = [network.name, network.family, milliseconds(network.measured_s)]
        for predicted in (first, second):
            found = predicted.get(network.name)
            cells += ["–", "–"] if found is None else [milliseconds(found), f"{found / network.measured_s - 1:+.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _covered(device: Device, networks: Sequence[Network], predicted: Predicted) -> str:
    """How many of the networks lie in the interval that the device file states, which knows kernels and blocks alone."""
    assert device.held_out is not None
    (band,) = device.held_out.bands
    within = sum(abs(log(predicted[n.name] / n.measured_s)) <= band.log_halfwidth for n in networks)
    return (
        f"The file's {percent(device.held_out.interval)} interval, {percent(exp(band.log_halfwidth) - 1)} either way, holds "
        f"{within} of {len(networks)}."
    )


def draw(runtime: str, title: str, networks: Sequence[Network], predicted: Predicted) -> None:
    """plots/calibrated_RUNTIME.svg: predicted against measured."""
    pairs = [Pair(n.name, n.family, n.measured_s, predicted[n.name]) for n in networks if n.name in predicted]
    data = agreement(f"{title}, calibrated", pairs, "no network was timed for it")
    (PLOTS / f"calibrated_{runtime}.svg").write_bytes(draw_agreement(data, FORMS[".svg"]).content)


def measured(runtime: str, rules: FusionRules) -> list[Network]:
    """The networks that were timed on `runtime`, one thread, batch 1, with their kernels."""
    found: dict[str, Network] = {}
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["runtime"] != runtime or row["threads"] != "1":
            continue
        p50, low, high = (float(row[key]) for key in ("latency_p50_s", "latency_low_s", "latency_high_s"))
        name = row["model"]
        kernels, params, macs = kernels_of(name, rules)
        family = TIMM.get(name) or row["family"]
        found[name] = Network(name, family, params, macs, kernels, p50, (high - low) / 2 / p50)
    return list(found.values())


def kernels_of(name: str, rules: FusionRules) -> tuple[tuple[Kernel, ...], int, int]:
    """Kernels, params and MACs of a network of the zoo, or of timm."""
    from vitscope.profile import deploy_graphs, profile
    from vitscope.spec import load_spec

    totals = profile(name).totals
    if name in TIMM:
        from vitscope.foreign import load_network

        graphs: Sequence[Any] = (load_network(name).deploy.batched,)
    else:
        graphs = deploy_graphs(load_spec(name))
    return tuple(bare(k) for graph in graphs for k in lower(graph, rules)), totals.params, totals.macs


Predicted = dict[str, float]


def predictions(networks: Sequence[Network], costs_of: Callable[[Network], ClassCosts | None]) -> Predicted:
    found = {}
    for network in networks:
        costs = costs_of(network)
        if costs is not None:
            total = costs.floor_s + costs.cold_s(network.kernels, FLOAT_BYTES)
            for kernel, count in Counter(network.kernels).items():
                seconds = costs.kernel_s(kernel, FLOAT_BYTES)
                total += count * (costs.moving_s(kernel, FLOAT_BYTES) if seconds is None else seconds)
            found[network.name] = total
    return found


def left_out(
    networks: Sequence[Network], timed: Sequence[Timed], floor_s: float, corrected: frozenset[str]
) -> Callable[[Network], ClassCosts]:
    """Costs fitted without any kernel that a network of the same family has, and without any block that has one."""
    made: dict[str, ClassCosts] = {}

    def costs_of(network: Network) -> ClassCosts:
        if network.family not in made:
            theirs = {kernel for n in networks if n.family == network.family for kernel in n.kernels}
            rest = [
                each for each in timed if each.wanted not in theirs and not (each.is_block and theirs & {*each.kernels})
            ]
            made[network.family] = fit(rest, floor_s, FLOAT_BYTES, corrected=corrected)
        return made[network.family]

    return costs_of


def refined(networks: Sequence[Network], costs: ClassCosts) -> Predicted:
    """As `--refine` would: each family by a factor and a time for each kernel that the networks of the others tell."""
    wholes = [Whole(n.name, n.family, n.kernels, n.measured_s) for n in networks]
    return {each.network.name: each.refined_s for each in leave_families_out(costs, wholes, FLOAT_BYTES)}


def thirteen_terms(network: Network) -> list[float]:
    """Floor, number of kernels, MACs of the six classes of products, and bytes: written by convolutions, by all else,
    of weights, of softmax and of norms."""
    by = Counter[str]()
    for k in network.kernels:
        by["kernels"] += 1
        by["weights"] += k.weights
        by[f"macs {k.kind}"] += k.macs
        by[f"bytes {'product' if k.kind in PRODUCTS else k.kind if k.kind in ('softmax', 'norm') else 'other'}"] += (
            k.reads + k.writes
        )
    macs = [by[f"macs {kind}"] for kind in sorted(PRODUCTS)]
    other = [by[f"bytes {kind}"] for kind in ("product", "other", "softmax", "norm")]
    return [1.0, by["kernels"], by["weights"], *macs, *other]


def additive(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Non-negative coefficients of least relative error."""
    return non_negative(x / y[:, None], np.ones(len(y)))


def non_negative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Lawson and Hanson's non-negative least squares, columns scaled."""
    scale = np.maximum(np.linalg.norm(a, axis=0), 1e-30)
    a = a / scale
    x = np.zeros(a.shape[1])
    passive = np.zeros(a.shape[1], bool)
    for _ in range(10 * a.shape[1]):
        gradient = a.T @ (b - a @ x)
        gradient[passive] = -np.inf
        if gradient.max() <= 1e-10:
            break
        passive[int(gradient.argmax())] = True
        while True:
            s = np.zeros_like(x)
            s[passive] = np.linalg.lstsq(a[:, passive], b, rcond=None)[0]
            if s[passive].min() > 0:
                x = s
                break
            bad = passive & (s <= 0)
            step = (x[bad] / (x[bad] - s[bad])).min()
            x = x + step * (s - x)
            passive &= x > 1e-14
            x[~passive] = 0
            if not passive.any():
                break
    return x / scale


def by_family(
    networks: Sequence[Network],
    terms: Callable[[Network], list[float]],
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Predicted:
    """Each family predicted by coefficients fitted on the measured networks of the others."""
    found = {}
    for family in {n.family for n in networks}:
        others = [n for n in networks if n.family != family]
        x = np.array([terms(n) for n in others], float)
        coefficients = solve(x, np.array([n.measured_s for n in others]))
        found |= {n.name: float(np.array(terms(n)) @ coefficients) for n in networks if n.family == family}
    return found


def forests(networks: Sequence[Network], timed: Sequence[Timed], costs: ClassCosts) -> Predicted:
    """A random forest for each class of kernels, on its sizes, MACs and parameters, as nn-Meter has it; each family
    predicted without the kernels that it has. Empty where scikit-learn is not installed."""
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        print("scikit-learn is not installed: no random forest", file=sys.stderr)
        return {}
    formula = replace(costs, corrections={})
    samples: list[tuple[Timed, str, list[float], float]] = []
    for each in timed:
        factors = None if each.is_block else residuals([each], formula, FLOAT_BYTES).get(class_of(each.wanted))
        own = formula.kernel_s(each.wanted, FLOAT_BYTES)
        if factors and own:
            samples.append((each, class_of(each.wanted), _sizes(each.wanted), own * exp(factors[0][1])))
    found: Predicted = {}
    for family in sorted({n.family for n in networks}):
        members = [n for n in networks if n.family == family]
        theirs = {kernel for n in members for kernel in n.kernels}
        trained: Mapping[str, Any] = {}
        for name in {name for _, name, _, _ in samples}:
            rest = [(x, y) for each, of, x, y in samples if of == name and each.wanted not in theirs]
            if len(rest) >= 5:
                forest = RandomForestRegressor(n_estimators=100, random_state=0)
                trained = {**trained, name: forest.fit([x for x, _ in rest], [y for _, y in rest])}
        for network in members:
            total = costs.floor_s + costs.cold_s(network.kernels, FLOAT_BYTES)
            for kernel in network.kernels:
                model = trained.get(class_of(kernel))
                if model is not None and kernel.geometry is not None:
                    total += float(model.predict([_sizes(kernel)])[0])
                else:
                    total += formula.kernel_s(kernel, FLOAT_BYTES) or 0.0
            found[network.name] = total
    return found


def _sizes(kernel: Kernel) -> list[float]:
    size = kernel.geometry
    assert size is not None
    return [
        size.out_size[0] * size.out_size[1], size.in_channels, size.out_channels, size.window[0], size.stride[0],
        kernel.macs / 1e6, kernel.weights / 1e6,
    ]  # fmt: skip


def held(networks: Sequence[Network], predicted: Predicted) -> list[HeldOutNetwork]:
    return [
        HeldOutNetwork(NetworkId(n.name, 0), n.family, predicted[n.name], n.measured_s, "")
        for n in networks
        if predicted.get(n.name, 0) > 0
    ]


def _score_line(label: str, s: Score) -> str:
    low, high = wilson(s.within_10, s.networks)
    return (
        f"| {label} | {s.networks} | {percent(s.mape)} | {percent(s.median)} | {percent(s.within_5)} | "
        f"{percent(s.within_10)} ({percent(low)}–{percent(high)}) | {s.bias:+.1%} | {s.spearman:.3f} | "
        f"{s.worst_family} {percent(s.worst_mape)} |"
    )


if __name__ == "__main__":
    main()
