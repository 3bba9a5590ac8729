"""RepViT: timm's logits with timm's weights, and the counts of the train and the deploy form as timm's own."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import images, relative_error, zoo_graph
from proof import TOLERANCE, Size, named_sizes, pair, part, refused, same_logits, trains, trains_on_meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec

# name, which is also timm's; params and MACs at 224 of the train form with both heads, then of the deploy form (arXiv
# 2307.09283, Table 1, prints the latter: 5.1M/0.8G, 6.8M/1.1G, 8.2M/1.3G, 14.0M/2.3G, 22.9M/4.5G); sizes for logits.
TABLE = [
    ("repvit_m0_9", 5_489_328, 817_280_832, 5_067_056, 815_617_344, [(224, 224), (96, 160), (75, 53)]),
    ("repvit_m1_0", 7_302_796, 1_108_077_600, 6_810_312, 1_106_136_864, [(96, 64)]),
    ("repvit_m1_1", 8_802_912, 1_339_242_240, 8_244_312, 1_337_124_608, [(64, 64)]),
    ("repvit_m1_5", 14_644_432, 2_276_968_192, 14_049_992, 2_273_596_160, [(64, 64)]),
    ("repvit_m2_3", 23_688_792, 4_521_490_880, 22_926_792, 4_515_958_720, [(64, 64)]),
]
NAMES = [row[0] for row in TABLE]


def counted(model: nn.Module, size: tuple[int, ...]) -> tuple[int, int]:
    """Params, and MACs as torch's FlopCounterMode counts them, of a network on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *size))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm_before_and_after_fuse(timm: ModuleType, name: str, size: Size) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(("name", "params", "core", "deploy_params", "deploy_core", "_"), TABLE, ids=NAMES)
def test_counts_of_both_forms(
    timm: ModuleType, name: str, params: int, core: int, deploy_params: int, deploy_core: int, _: object
) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        ours, theirs = build(spec).eval(), timm.create_model(name).eval()
    assert part(zoo_graph(name)) == (params, core)
    assert counted(ours, spec.input) == counted(theirs, spec.input) == (params, core)
    fuse_in_place(ours)
    with torch.device("meta"):
        theirs = timm.utils.reparameterize_model(theirs)
    assert counted(ours, spec.input) == counted(theirs, spec.input) == (deploy_params, deploy_core)
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in ours.modules())


def test_what_a_block_costs() -> None:
    # Block 0 of M0.9 at 56×56: depthwise 3×3 and 1×1 (with bias), gate 48 → 16 → 48, MLP 48 → 96 → 48; norms in pairs.
    params = 48 * 9 + 2 * 48 + (48 + 48) + 2 * 48 + (48 * 16 + 16 + 16 * 48 + 48) + 2 * 48 * 96 + 2 * 96 + 2 * 48
    core = 56 * 56 * (48 * 9 + 48 + 2 * 48 * 96) + 2 * 48 * 16
    assert part(zoo_graph("repvit_m0_9"), "stages.0.blocks.0.") == (params, core)


def test_while_training_each_head_has_its_own_norm(timm: ModuleType) -> None:
    theirs, ours = pair(timm, "repvit_m0_9", (64, 64), sized=False)
    theirs.set_distilled_training(True)
    x = images(64, 64, batch=4)
    with torch.no_grad():
        expected = theirs.train()(x)
        found = ours.train()(x)
    for mine, timms in zip(found, expected, strict=True):
        assert relative_error(mine, timms) < TOLERANCE


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains(NAMES[0], (64, 64))


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_others_train_on_meta(name: str) -> None:
    trains_on_meta(name, (64, 64))


@pytest.mark.parametrize("mistake", ["input left out", "norm of the other head", "gate left out"])
def test_a_mistake_breaks_parity(timm: ModuleType, mistake: str) -> None:
    theirs, ours = pair(timm, "repvit_m0_9", (64, 64), sized=False)
    mixer = ours.stages[2].blocks[4].token_mixer
    if mistake == "input left out":
        mixer.identity = None
    elif mistake == "gate left out":
        mixer.se = nn.Identity()
    else:
        ours.head.norm_dist = ours.head.norm
    x = images(64, 64)
    with torch.no_grad():
        for model in (ours, fuse(ours)):
            assert relative_error(model(x), theirs(x)) > TOLERANCE


def test_a_norm_for_each_head_stands_behind_the_pooling(tmp_path) -> None:
    refused(
        tmp_path,
        "extends: repvit_m0_9\nhead: {pool_first: false}\n",
        "own_norms needs norm: bn, pool: mean and pool_first: true",
    )
