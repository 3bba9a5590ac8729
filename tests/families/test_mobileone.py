"""MobileOne: timm's logits with timm's weights, counts of the train and the deploy form, and the reparameterisation."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from networks import randomise, relative_error, zoo_graph
from proof import TOLERANCE, Size, named_sizes, refused, same_logits, trains, trains_on_meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.blocks.reparam import ReparamConv
from vitscope.cost.conventions import params_and_macs
from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec
from vitscope.weights.names import naming_of
from vitscope.weights.naming import our_names

# name, which is also timm's; params and MACs at 224 of the train form, then of the deploy form (arXiv 2206.04040, Table 9,
# prints the latter: 2.1M/275M, 4.8M/825M, 7.8M/1299M, 10.1M/1896M, 14.8M/2978M); sizes at which logits are compared.
TABLE = [
    ("mobileone_s0", 5_293_272, 1_051_935_232, 2_078_504, 275_110_400, [(224, 224), (96, 160), (75, 53)]),
    ("mobileone_s1", 4_825_192, 830_062_080, 4_764_840, 825_057_024, [(96, 64)]),
    ("mobileone_s2", 7_884_648, 1_304_027_392, 7_808_168, 1_298_426_496, [(64, 64)]),
    ("mobileone_s3", 10_170_600, 1_902_112_768, 10_078_312, 1_895_790_592, [(64, 64)]),
    ("mobileone_s4", 14_951_248, 2_986_802_432, 14_838_352, 2_979_269_760, [(64, 96)]),
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
    assert params_and_macs(zoo_graph(name), "vitscope") == (params, core)
    assert counted(ours, spec.input) == counted(theirs, spec.input) == (params, core)
    fuse_in_place(ours)
    with torch.device("meta"):
        theirs = timm.utils.reparameterize_model(theirs)
    assert counted(ours, spec.input) == counted(theirs, spec.input) == (deploy_params, deploy_core)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains(NAMES[0], (64, 64))


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_others_train_on_meta(name: str) -> None:
    trains_on_meta(name, (64, 64))


def test_authors_names_lead_to_ours() -> None:
    with torch.device("meta"):
        ours = build(load_spec("mobileone_s4")).state_dict()
    theirs = {}
    for key in ours:
        name = key.replace("stem.conv.", "stage0.").replace("head.head.", "linear.")
        for half, number in (("depthwise", 0), ("pointwise", 1)):
            if f".{half}." in name:
                _, stage, _, block, _, rest = name.split(".", 5)
                name = f"stage{int(stage) + 1}.{2 * int(block) + number}.{rest}"
        name = name.replace(".branches.", ".rbr_conv.").replace(".small.", ".rbr_scale.")
        name = name.replace(".norm.", ".bn.").replace(".identity.", ".rbr_skip.")
        theirs[name] = key
    naming = naming_of(theirs)
    assert naming is not None
    assert naming.name == "authors' MobileOne"
    assert our_names(naming, theirs) == theirs


# --- The reparameterisable convolution, for every family that has one. ---

CASES = {
    "dense": {"kernel": 3, "small_kernel": 1},
    "many branches": {"kernel": 3, "branches": 4, "small_kernel": 1},
    "strided": {"kernel": 3, "stride": 2, "small_kernel": 1},
    "depthwise": {"kernel": 3, "groups": 8, "small_kernel": 1},
    "groups": {"kernel": 3, "groups": 2, "small_kernel": 1},
    "wider than its input": {"kernel": 7, "out_channels": 16, "groups": 8, "stride": 2, "small_kernel": 3},
    "pointwise": {"branches": 2},
    "plain identity and a norm of the sum": {
        "kernel": 3, "groups": 8, "small_kernel": 1, "identity": "plain", "norm_sum": True,
    },
    "without identity": {"kernel": 3, "identity": "none"},
    "gated": {"kernel": 3, "small_kernel": 1, "squeezed": 2, "act": "gelu"},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_all_branches_become_one_convolution(case: str) -> None:
    options = {"out_channels": 8, **CASES[case]}
    layer = ReparamConv(8, **options).eval()
    randomise(layer)
    x = torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(1))
    fused = fuse(layer)
    with torch.device("meta"):
        on_meta = ReparamConv(8, **options)
        fuse_in_place(on_meta.eval())
    with torch.no_grad():
        assert relative_error(fused(x), layer(x)) < 1e-6
    convs = [m for m in fused.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == (3 if case == "gated" else 1)
    assert {k: v.shape for k, v in on_meta.state_dict().items()} == {k: v.shape for k, v in fused.state_dict().items()}
    again = fuse(fused)
    assert all(torch.equal(a, b) for a, b in zip(fused.parameters(), again.parameters(), strict=True))


def off_centre(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    return F.pad(weight, (0, kernel - weight.shape[-1]) * 2)


def test_a_lost_identity_or_a_kernel_off_its_centre_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ReparamConv(8, 8, 3, groups=8, small_kernel=1).eval()
    randomise(layer)
    x = torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = layer(x)
        with monkeypatch.context() as patch:
            patch.setattr("vitscope.blocks.reparam.identity_kernel", lambda conv, gain: 0)
            assert relative_error(fuse(layer)(x), expected) > TOLERANCE
        with monkeypatch.context() as patch:
            patch.setattr("vitscope.blocks.reparam.centred", off_centre)
            assert relative_error(fuse(layer)(x), expected) > TOLERANCE


def test_what_cannot_be(tmp_path) -> None:
    refused(
        tmp_path,
        "extends: mobileone_s0\nstages: {0: {se_ratio: 0.01}}\n",
        r"se_ratio 0\.01 of 48 channels leaves no squeezed channel",
    )
