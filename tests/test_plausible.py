"""The least time that hardware allows: the arithmetic left visible, and what is not known left unchecked."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest
from test_rows import MEASUREMENT

from vitscope.latency.device import load_device
from vitscope.measure import plausible
from vitscope.measure.plausible import ImplausibleError, Roof, check, device_roof, host_roof, lower_bound, roof_of
from vitscope.measure.record import Measurement

ROOF = Roof(macs_per_s=1e9, macs_from="a slide rule", bytes_per_s=1e6, on_chip_bytes=500, bytes_from="a bucket")


def measured(seconds: float, **condition: object) -> Measurement:
    at = replace(MEASUREMENT.condition, **{"input_shape": (1, 3, 8, 8), **condition})  # type: ignore[arg-type]
    return replace(MEASUREMENT, summary=replace(MEASUREMENT.summary, latency_p50_s=seconds), condition=at)


def test_the_bound_is_the_later_of_arithmetic_and_memory() -> None:
    assert lower_bound(8_000_000, 0, ROOF).seconds == 8_000_000 / 4 / 1e9
    assert lower_bound(8_000_000, 10_500, ROOF).seconds == (10_500 - 500) / 1e6
    assert lower_bound(8_000_000, 500, ROOF).seconds == 8_000_000 / 4 / 1e9  # all of it stays on the chip
    assert lower_bound(8_000_000, 10_500, replace(ROOF, bytes_per_s=None)).seconds == 8_000_000 / 4 / 1e9


def test_a_figure_below_it_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ImplausibleError) as caught:
        check(measured(0.0019), macs=8_000_000, weight_bytes=0, roof=ROOF)
    assert str(caught.value) == (
        "net, the first on onnxruntime: 1.90 ms is implausible: "
        "8.00M MACs / 4 (Winograd) / 1.00G MACs/s (a slide rule) = 2.00 ms at least"
    )
    assert caught.value.exit_code == 1
    with pytest.raises(
        ImplausibleError, match=r"\(10.5kB of weights − 500B on the chip\) / 1.00MB/s \(a bucket\) = 10.0 ms"
    ):
        check(measured(0.0099), macs=8_000_000, weight_bytes=10_500, roof=ROOF)


def test_a_figure_above_it_passes_with_its_bound() -> None:
    bound = check(measured(0.0021), macs=8_000_000, weight_bytes=0, roof=ROOF)
    assert bound is not None and bound.seconds == 0.002


def test_every_image_of_a_batch_counts() -> None:
    with pytest.raises(ImplausibleError):
        check(measured(0.0021, input_shape=(2, 3, 8, 8)), macs=8_000_000, weight_bytes=0, roof=ROOF)


@pytest.mark.parametrize(
    ("flags", "precision", "threads", "per_cycle"),
    [
        ("sse2 avx avx2 fma avx512f", "fp32", 1, 2 * 16),
        ("sse2 avx avx2 fma", "fp32", 2, 2 * 2 * 8),
        ("sse2 avx avx2", "fp32", 1, 8),
        ("sse2", "fp32", 1, 4),
        ("sse2 avx avx2 fma", "int8", 1, 4 * 2 * 8),
        ("sse2 avx avx2 fma avx512f amx_int8", "int8", 1, 1024),
        ("sse2 avx avx2 fma avx512f amx_bf16", "fp32", 1, 2 * 16),
        ("asimd asimdhp", "fp16", 4, 4 * 2 * 4 * 4),
        ("asimd", "fp16", 4, 4 * 4 * 4),
        ("asimd asimddp i8mm", "int8", 1, 8 * 4 * 4),
    ],
)
def test_the_peak_of_a_host(flags: str, precision: plausible.Precision, threads: int, per_cycle: int) -> None:
    roof = host_roof(flags.split(), precision, threads=threads, clock_hz=2e9, cores=8)
    assert roof is not None and roof.macs_per_s == per_cycle * 2e9 and "2.00 GHz" in roof.macs_from


def test_threads_beyond_the_cores_add_nothing() -> None:
    roof = host_roof(["asimd"], "fp32", threads=8, clock_hz=1e9, cores=2)
    assert roof is not None and roof.macs_per_s == 2 * 16 * 1e9


def test_a_clock_that_cannot_be_read_is_taken_high_and_told() -> None:
    roof = host_roof(["sse2"], "fp32", threads=1, clock_hz=None, cores=1)
    assert (
        roof is not None and roof.macs_per_s == 4 * 6.5e9 and "taken because the clock cannot be read" in roof.macs_from
    )


def test_an_iphone_12_is_held_to_the_facts_of_its_file() -> None:
    roof = roof_of(replace(MEASUREMENT.condition, target="iphone", host="iPhone 12 (iPhone13,2)"))
    assert roof == device_roof(load_device("iphone12")) and roof is not None
    assert (roof.macs_per_s, roof.bytes_per_s, roof.on_chip_bytes) == (5.5e12, 34.1e9, 16777216)


@pytest.mark.parametrize(
    "condition",
    [
        {"target": "ssh:pi"},
        {"target": "adb:X", "processor": "Tensor"},
        {"target": "host", "host": "another machine"},
        {"target": "host", "host": platform.node(), "unit": "cuda"},
    ],
)
def test_what_is_not_known_is_not_checked(condition: dict[str, object]) -> None:
    assert check(measured(1e-12, **condition), macs=10**9, weight_bytes=10**9) is None
    assert host_roof(["rv64gc"], "fp32", threads=1, clock_hz=1e9) is None


def test_this_host_refuses_a_miracle_and_takes_a_real_figure() -> None:
    here = {"target": "host", "host": platform.node(), "threads": 1}
    if roof_of(measured(1.0, **here).condition) is None:
        pytest.skip("the cores of this host are not in the table")
    with pytest.raises(ImplausibleError, match="core ×"):
        check(measured(1e-6, **here), macs=300_000_000, weight_bytes=0)
    bound = check(measured(0.05, **here), macs=300_000_000, weight_bytes=0)
    assert bound is not None and 1e-5 < bound.seconds < 0.05
