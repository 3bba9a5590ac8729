"""MES (arXiv 2212.08059): the scores that follow from the published sizes and latencies."""

from __future__ import annotations

import pytest

from vitscope.cost.mes import mes


@pytest.mark.parametrize(
    ("params", "latency_ms", "score"),
    [
        (3_000_000, 1.0, 100.0),  # the unit itself
        (3_500_000, 0.9, 102.9),  # EfficientFormerV2-S0 and MobileNetV2
        (6_100_000, 1.1, 63.8),  # S1
        (12_600_000, 1.6, 30.5),  # S2
        (26_100_000, 2.7, 12.6),  # L
        (12_300_000, 1.4, 35.3),  # EfficientFormer-L1
        (2_300_000, 7.3, 15.6),  # MobileViT-XS
    ],
)
def test_published_scores(params, latency_ms, score):
    assert mes(params, latency_ms * 1e-3, "iphone12", "reported").score == pytest.approx(score, abs=0.05)


def test_the_score_is_the_product_of_its_factors_and_shows_them():
    result = mes(6_000_000, 2e-3, "iphone12", "predicted")
    assert result.size_factor == pytest.approx((6 / 3) ** -0.5)
    assert result.latency_factor == pytest.approx((2 / 1) ** -1.0)
    assert result.score == pytest.approx(100 * result.size_factor * result.latency_factor)
    assert result.working == "100 · (6M/3M)^-0.5 · (2ms/1ms)^-1 = 100 · 0.707 · 0.500"


def test_a_score_of_another_device_is_in_another_unit():
    assert mes(3_000_000, 1e-3, "iphone12", "predicted").has_paper_unit
    assert not mes(3_000_000, 1e-3, "pixel6", "predicted").has_paper_unit
