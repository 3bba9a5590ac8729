"""FastViT: timm's logits with timm's weights, and the counts of the train and the deploy form beside timm's own."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import images, randomise, relative_error, zoo_graph
from proof import TOLERANCE, Size, named_sizes, pair, part, refused, same_logits, trains, trains_on_meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.blocks.fastvit import PositionConv, RepMixer
from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec

# name, which is also timm's; params and MACs at 256 of the train form, then those of timm's deploy form; the widths of
# all blocks added up, of RepMixer and of attention; sizes at which logits are compared.
TABLE = [
    ("fastvit_t8", 4_026_232, 690_149_376, 3_996_040, 685_160_448, 2 * 48 + 2 * 96 + 4 * 192 + 2 * 384, 0,
     [(256, 256), (224, 160), (75, 53)]),
    ("fastvit_t12", 7_553_704, 1_397_727_232, 7_508_840, 1_390_944_256, 2 * 64 + 2 * 128 + 6 * 256 + 2 * 512, 0, [(64, 96)]),
    ("fastvit_s12", 9_473_576, 1_800_380_416, 9_428_712, 1_793_597_440, 2 * 64 + 2 * 128 + 6 * 256 + 2 * 512, 0, [(64, 64)]),
    ("fastvit_sa12", 11_580_968, 1_943_937_024, 11_545_320, 1_937_219_584, 2 * 64 + 2 * 128 + 6 * 256, 2 * 512,
     [(256, 256), (96, 160), (75, 53)]),
    ("fastvit_sa24", 21_554_216, 3_769_966_592, 21_501_288, 3_762_069_504, 4 * 64 + 4 * 128 + 12 * 256, 4 * 512, [(64, 96)]),
    ("fastvit_sa36", 31_527_464, 5_595_996_160, 31_457_256, 5_586_919_424, 6 * 64 + 6 * 128 + 18 * 256, 6 * 512, [(64, 64)]),
    ("fastvit_ma36", 44_068_004, 7_825_709_056, 43_984_632, 7_814_930_432, 6 * 76 + 6 * 152 + 18 * 304, 6 * 608, [(64, 64)]),
]  # fmt: skip
NAMES = [row[0] for row in TABLE]
SMALLEST = ["fastvit_t8", "fastvit_sa12"]


def counted(model: nn.Module, size: tuple[int, ...]) -> tuple[int, int]:
    """Params, and MACs as torch's FlopCounterMode counts them, of a network on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *size))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm_before_and_after_fuse(timm: ModuleType, name: str, size: Size) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(
    ("name", "params", "core", "timm_deploy_params", "deploy_core", "mixed", "attended", "_"), TABLE, ids=NAMES
)
def test_counts_of_both_forms(
    timm: ModuleType, name: str, params: int, core: int, timm_deploy_params: int, deploy_core: int, mixed: int,
    attended: int, _: object,
) -> None:  # fmt: skip
    spec = load_spec(name)
    assert spec.input == (3, 256, 256)
    with torch.device("meta"):
        ours, theirs = build(spec).eval(), timm.create_model(name).eval()
    assert part(zoo_graph(name)) == (params, core)
    assert counted(ours, spec.input) == (params, core)
    fuse_in_place(ours)
    with torch.device("meta"):
        theirs = timm.utils.reparameterize_model(theirs)
    assert counted(theirs, spec.input) == (timm_deploy_params, deploy_core)
    # timm leaves these alone, a channel of each block at a time. In the FFN: the norm behind the 7×7 (gain and shift
    # become a bias) and the layer scale. In attention: its layer scale, and the norm before q, k, v (gain and shift
    # become their three biases).
    folded = (mixed + attended) * (2 - 1 + 1) + attended * (1 + 2 - 3)
    assert counted(ours, spec.input) == (timm_deploy_params - folded, deploy_core)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())


def test_what_a_block_costs() -> None:
    # Block 0 of T8 at 64×64, 48 channels: 3×3 and 1×1 depthwise, four norms, layer scale; 7×7, norm, 48 → 144 → 48.
    mixer = 48 * 9 + 48 + 4 * 2 * 48 + 48
    ffn = 48 * 49 + 2 * 48 + (48 * 144 + 144) + (144 * 48 + 48) + 48
    core = 64 * 64 * (48 * 9 + 48 + 48 * 49 + 2 * 48 * 144)
    assert part(zoo_graph("fastvit_t8"), "stages.0.blocks.0.") == (mixer + ffn, core)


@pytest.mark.parametrize("scale", [0.3, None])
def test_the_mixer_becomes_one_convolution(scale: float | None) -> None:
    mixer = RepMixer(8, 3, norm_eps=1e-5, layer_scale_init=scale).eval()
    randomise(mixer)
    x = torch.randn(2, 8, 7, 9, generator=torch.Generator().manual_seed(1))
    fused = fuse(mixer)
    with torch.no_grad():
        assert relative_error(fused(x), mixer(x)) < 1e-6
    assert sum(p.numel() for p in fused.parameters()) == 8 * 9 + 8


def test_the_position_encoding_becomes_one_convolution() -> None:
    encoding = PositionConv(8, 7).eval()
    x = torch.randn(2, 8, 7, 9, generator=torch.Generator().manual_seed(1))
    fused = fuse(fuse(encoding))
    with torch.no_grad():
        assert relative_error(fused(x), encoding(x)) < 1e-6
        assert relative_error(fused.conv(x), encoding(x)) < 1e-6


@pytest.mark.parametrize("name", SMALLEST)
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    trains(name, (64, 64))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SMALLEST])
def test_the_others_train_on_meta(name: str) -> None:
    trains_on_meta(name, (64, 64))


@pytest.mark.parametrize("mistake", ["norm not subtracted", "small kernel left out", "no position encoding"])
def test_a_mistake_breaks_parity(timm: ModuleType, mistake: str) -> None:
    theirs, ours = pair(timm, "fastvit_sa12", (64, 64), sized=False)
    if mistake == "norm not subtracted":
        ours.stages[2].blocks[3].token_mixer.norm = nn.BatchNorm2d(256).eval()
    elif mistake == "small kernel left out":
        ours.stages[1].downsample.spatial.small = None
    else:
        ours.stages[3].downsample.position = nn.Identity()
    x = images(64, 64)
    with torch.no_grad():
        for model in (ours, fuse(ours)):
            assert relative_error(model(x), theirs(x)) > TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("extends: fastvit_sa12\nstages: {3: {head_dim: 24}}\n", "heads of head_dim 24 do not divide 512 channels"),
        ("extends: fastvit_t8\nstages: {1: {width: 100}}\n", "needs a width that 48 channels divide, 100 is none"),
        ("extends: fastvit_t8\nhead: {se_ratio: 0.001}\n", "leaves no squeezed channel"),
        ("extends: fastvit_t8\nstages: {1: {downsample: {block: large_kernel, kernel: 3}}}\n", "is not smaller than kernel 3"),
        ("extends: fastvit_t8\nstages: {1: {ffn_kernel: 4}}\n", "ffn_kernel of repmixer: must be odd, got 4"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path, change: str, message: str) -> None:
    refused(tmp_path, change, message)
