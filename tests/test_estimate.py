"""estimate: the same totals as a profile, for every network of the zoo."""

from __future__ import annotations

import pytest

from vitscope.estimate import estimate
from vitscope.latency.device import load_device
from vitscope.profile import profile_spec
from vitscope.spec import load_spec
from vitscope.spec.zoo import zoo_names


@pytest.mark.parametrize("name", zoo_names())
def test_equals_the_profile(name):
    spec, device = load_spec(name), load_device("iphone12")
    for form in ("train", "deploy"):
        made, fast = profile_spec(spec, [device], form=form), estimate(spec, [device], form)
        assert fast.params == made.totals.params
        assert fast.macs == made.totals.macs
        assert fast.peak_activation_bytes == made.totals.peak_activation_bytes
        assert fast.unknown == len(made.totals.unknown)
        assert fast.latency_s == tuple(p.latency_s for p in made.predictions)
