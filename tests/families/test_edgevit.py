"""EdgeViT: the authors' counts, and the logits of a forward pass written out here from the paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import zoo_graph
from proof import counts, part, refused, same_as_formulas, trains, trains_on_meta
from torch import Tensor

from vitscope.spec import load_spec

# name; params and MACs of the authors' network at 224 (facts 0.3); heads and sampling rates of the stages; sizes at
# which logits are compared
TABLE = [
    ("edgevit_xxs", 4_067_704, 551_262_816, (1, 2, 4, 8), [(224, 224), (64, 96), (96, 32)]),
    ("edgevit_xs", 6_770_056, 1_127_815_200, (1, 2, 5, 8), [(64, 96)]),
    ("edgevit_s", 13_108_168, 1_911_021_792, (1, 2, 5, 8), [(32, 64)]),
]
NAMES = [row[0] for row in TABLE]
RATES = (4, 2, 2, 1)


def reference(w: dict[str, Tensor], x: Tensor, heads: tuple[int, ...], depths: list[int]) -> Tensor:
    """The network as functions of the weights `w`."""

    def conv(x: Tensor, key: str, **options: int) -> Tensor:
        return F.conv2d(x, w[f"{key}.weight"], w[f"{key}.bias"], **options)

    def depthwise(x: Tensor, key: str) -> Tensor:
        return conv(x, key, padding=w[f"{key}.weight"].shape[-1] // 2, groups=x.shape[1])

    def linear(x: Tensor, key: str) -> Tensor:
        return F.linear(x, w[f"{key}.weight"], w[f"{key}.bias"])

    def batch(x: Tensor, key: str) -> Tensor:
        values = (w[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-5)

    def layer(x: Tensor, key: str, eps: float) -> Tensor:  # channels last
        return F.layer_norm(x, x.shape[-1:], w[f"{key}.weight"], w[f"{key}.bias"], eps)

    def layer_map(x: Tensor, key: str) -> Tensor:
        return layer(x.movedim(1, -1), key, 1e-5).movedim(-1, 1)

    x = layer_map(conv(x, "stem.conv", stride=4), "stem.norm")
    for i, (rate, num_heads, depth) in enumerate(zip(RATES, heads, depths, strict=True)):
        if i:
            x = layer_map(conv(x, f"stages.{i}.downsample.conv", stride=2), f"stages.{i}.downsample.norm")
        for j in range(depth):
            at = f"stages.{i}.blocks.{j}"
            if rate > 1:
                x = x + depthwise(x, f"{at}.local.positions")
                y = conv(batch(x, f"{at}.local.norm1"), f"{at}.local.gather.0")
                x = x + conv(depthwise(y, f"{at}.local.gather.1"), f"{at}.local.gather.2")
                y = F.gelu(conv(batch(x, f"{at}.local.norm2"), f"{at}.local.fc1.conv"))
                x = x + conv(y, f"{at}.local.fc2.conv")
            x = x + depthwise(x, f"{at}.positions")
            tokens = layer(x.movedim(1, -1), f"{at}.norm1", 1e-6)  # (B, H, W, C)
            rows = tokens.movedim(-1, 1)[:, :, ::rate, ::rate]
            B, C, h, width = rows.shape
            q, k, v = linear(rows.flatten(2).mT, f"{at}.attn.attn.qkv").chunk(3, dim=-1)
            outputs = []
            for n in range(num_heads):
                one = slice(n * C // num_heads, (n + 1) * C // num_heads)
                logits = q[..., one] @ k[..., one].mT / (C // num_heads) ** 0.5
                outputs.append(logits.softmax(-1) @ v[..., one])
            y = torch.cat(outputs, -1).mT.reshape(B, C, h, width)
            if rate > 1:
                key = f"{at}.attn.spread"
                y = F.conv_transpose2d(y, w[f"{key}.weight"], w[f"{key}.bias"], stride=rate, groups=C)
                y = layer_map(y, f"{at}.attn.norm")
            x = x + linear(y.movedim(1, -1), f"{at}.attn.attn.proj").movedim(-1, 1)
            y = linear(layer(x.movedim(1, -1), f"{at}.norm2", 1e-6), f"{at}.mlp.fc1")
            x = x + linear(F.gelu(y), f"{at}.mlp.fc2").movedim(-1, 1)
    return linear(batch(x, "head.norm").mean((2, 3)), "head.head")


@pytest.mark.parametrize(
    ("name", "heads", "size"),
    [pytest.param(row[0], row[3], s, id=f"{row[0]}-{s[0]}x{s[1]}") for row in TABLE for s in row[-1]],
)
def test_same_logits_as_the_formulas(name: str, heads: tuple[int, ...], size: tuple[int, int]) -> None:
    depths = [len(stage.blocks) for stage in load_spec(name).stages]
    same_as_formulas(name, size, lambda values, x: reference(values, x, heads, depths), 1000)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


def test_parts() -> None:
    # Block 0 of stage 1 of XXS: 72 channels in 2 heads of 36, 28² positions, of which 14² attend.
    graph, dim, tokens, attending = zoo_graph("edgevit_xxs"), 72, 28 * 28, 14 * 14
    block = "stages.1.blocks.0"
    gather = 2 * dim * dim + 25 * dim
    assert part(graph, f"{block}.local.gather.") == (gather + 3 * dim, gather * tokens)
    assert part(graph, f"{block}.local.positions.") == (10 * dim, 9 * dim * tokens)
    assert part(graph, f"{block}.attn.spread.") == (4 * dim + dim, 4 * dim * attending)
    pairs = 2 * dim * attending * attending
    assert part(graph, f"{block}.attn.attn.")[0] == 4 * dim * dim + 4 * dim
    assert part(graph, f"{block}.attn.")[1] == (
        3 * dim * dim * attending + pairs + 4 * dim * attending + dim * dim * tokens
    )
    assert part(graph, f"{block}.mlp.") == (8 * dim * dim + 5 * dim, 8 * dim * dim * tokens)
    assert part(graph, "stages.3.blocks.0.attn.spread.") == (0, 0)  # every position attends: nothing to spread


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains("edgevit_xxs", (64, 64))


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_others_train_on_meta(name: str) -> None:
    trains_on_meta(name, (64, 64))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("stages: {2: {num_heads: 5}}", "5 heads do not divide 144 channels"),
        ("stages: {0: {sample_rate: 5}}", "sample_rate 5 does not divide the 56×56 map"),
        ("stages: {0: {kernel: 4}}", "kernel"),
    ],
)
def test_what_cannot_be(tmp_path, change: str, text: str) -> None:
    refused(tmp_path, f"extends: edgevit_xxs\n{change}\n", text)
