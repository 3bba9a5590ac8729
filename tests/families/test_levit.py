"""LeViT: timm's logits with timm's weights, the published counts, norms that fold, grids with odd sides."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import randomise, relative_error, zoo_graph, zoo_model
from proof import TOLERANCE, breaks_parity, counts, named_sizes, part, same_logits, trains, trains_on_meta
from torch import nn

from vitscope.blocks.tokens import BiasTable
from vitscope.errors import SpecError
from vitscope.model import build, fuse
from vitscope.spec import load_spec
from vitscope.spec.flow import flow

# name, which is also timm's; params and MACs at 224 (facts 0.3); sizes (height, width) at which logits are compared.
# At 224 the grids are 14, 7 and 4: the last shrinking rounds up. At 80×112 they are 5×7, 3×4 and 2×2.
TABLE = [
    ("levit_128s", 7_777_058, 304_660_832, [(224, 224), (192, 160), (80, 112)]),
    ("levit_128", 9_213_936, 405_321_728, [(96, 64)]),
    ("levit_192", 10_947_069, 657_022_080, [(64, 96)]),
    ("levit_256", 18_893_876, 1_127_257_344, [(64, 64)]),
]
NAMES = [row[0] for row in TABLE]
DOWN = ("stages.1.downsample", "stages.2.downsample")


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


def test_parts_of_the_smallest() -> None:
    graph = zoo_graph("levit_128s")
    stem = [(3, 16, 112), (16, 32, 56), (32, 64, 28), (64, 128, 14)]  # in, out, side of the map
    assert part(graph, "stem.") == (
        sum(9 * i * o + 2 * o for i, o, _ in stem),
        sum(9 * i * o * side**2 for i, o, side in stem),
    )
    dim, heads, key, value, tokens = 128, 4, 16, 32, 196
    qkv = heads * (2 * key + value)
    linear = dim * qkv + heads * value * dim + 4 * dim * dim
    norms = 2 * (qkv + dim + 2 * dim + dim)
    block = (linear + norms + heads * tokens, tokens * linear + heads * tokens**2 * (key + value))
    assert part(graph, "stages.0.blocks.1.") == block
    # Shrinking from 14×14 to 7×7: 8 heads, keys and values of all positions, queries of every second row and column.
    out, heads, value = 256, 8, 64
    kv, q = heads * (key + value), heads * key
    params = dim * (kv + q) + heads * value * out + 4 * out * out + 2 * (kv + q + out + 2 * out + out) + heads * tokens
    macs = (
        tokens * dim * kv + 49 * (dim * q + heads * value * out + 4 * out * out) + heads * 49 * tokens * (key + value)
    )
    assert part(graph, "stages.1.downsample.") == (params, macs)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training(name: str) -> None:
    (trains if name == NAMES[0] else trains_on_meta)(name, (96, 64))


def test_both_heads_while_training_their_average_in_eval_mode_one_after_fusing() -> None:
    model = zoo_model("levit_128s", (64, 64))
    randomise(model)
    x = torch.randn(2, 4, 384, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        average = model.head(x)
        pooled = x.mean(1)
        label = model.head.head(model.head.norm(pooled))
        teacher = model.head.head_dist(model.head.norm_dist(pooled))
        assert torch.allclose(average, (label + teacher) / 2)
        fused = fuse(model)
        assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in fused.modules())
        assert sum(isinstance(m, nn.Linear) for m in fused.head.modules()) == 1
        assert relative_error(fused.head(x), average) < TOLERANCE


def test_grids_and_tables_follow_the_input() -> None:
    spec = load_spec("levit_128s", resolution=(80, 112))
    shapes = [(p.out_shape.height, p.out_shape.width) for p in flow(spec) if p.path in ("stem", *DOWN)]
    assert shapes == [(5, 7), (3, 4), (2, 2)]
    with torch.device("meta"):
        tables = [tuple(m.table.shape) for m in build(spec).modules() if isinstance(m, BiasTable)]
    assert list(dict.fromkeys(tables)) == [(4, 35), (8, 35), (6, 12), (16, 12), (8, 4)]


def no_bias(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, BiasTable):
            nn.init.zeros_(module.table)


def last_stem_act(model: nn.Module) -> None:
    model.stem.conv4.act = nn.Hardswish()  # type: ignore[union-attr]


def one_head(model: nn.Module) -> None:
    model.head.head_dist = model.head.head  # type: ignore[union-attr]


@pytest.mark.parametrize("mistake", [no_bias, last_stem_act, one_head], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, "levit_128s", mistake)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (("stages.0.value_ratio=0.01",), "value_ratio 0.01 of 16 key channels leaves no value channel"),
        (("stages.1.downsample.key_dim=0",), "key_dim of levit_downsample expects"),
        (("stem.width=100",), "width 100 cannot be halved 3 times for a stem of depth 4"),
    ],
)
def test_what_cannot_be(settings: tuple[str, ...], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec("levit_128s", settings)
