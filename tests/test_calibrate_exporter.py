"""Exporter: probes as files, written by processes beside this one, whatever becomes of these."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor, nn

from vitscope.calibrate.exporter import Exporter
from vitscope.calibrate.probe import Probe
from vitscope.calibrate.record import Place
from vitscope.calibrate.timer import nothing
from vitscope.latency.kernels import Kernel
from vitscope.measure.targets import parse_target

HERE = os.getpid()


class Refused(nn.Module):
    """What no format holds: it asks for the value of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if float(x.sum()) > 0 else x.numpy() - 1  # type: ignore[return-value]


def none() -> Probe | None:
    return None


def refused() -> Probe:
    return Probe(Kernel("unknown", "", 0, 0, 0, 0, 1, (), "refused"), 1, Refused(), (3, 8, 8), ())


def ending(parent: int) -> Probe:
    """A converter that takes its process with it, but not the process of the test."""
    if os.getpid() != parent:
        os._exit(9)
    return nothing()


@pytest.fixture(scope="module")
def place() -> Place:
    return Place(target=parse_target("host"), runtime="onnxruntime", precision="fp32", threads=1)


def test_files_come_in_the_order_that_they_were_asked_for(place: Place) -> None:
    with Exporter(place) as exporter:
        first, second, third = exporter.export([nothing, none, nothing])
        assert second is None
        for found in (first, third):
            assert found is not None and found.artifact is not None and found.artifact.path.stat().st_size > 0
        folder = Path(first.artifact.path).parent.parent  # type: ignore[union-attr]
    assert not folder.exists()


def test_what_a_format_refuses_says_why(place: Place) -> None:
    with Exporter(place) as exporter:
        (found,) = exporter.export([refused])
        assert found is not None and found.artifact is None and "cannot" in found.reason


def test_a_converter_that_ends_its_process_takes_no_other_probe_with_it(place: Place) -> None:
    with Exporter(place) as exporter:
        first, ended, last = exporter.export([nothing, partial(ending, HERE), nothing])
        assert first is not None and first.artifact is not None
        assert ended is not None and ended.artifact is None and "ended" in ended.reason
        assert last is not None and last.artifact is not None
        (after,) = exporter.export([nothing])
        assert after is not None and after.artifact is not None
