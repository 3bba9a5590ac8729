"""Mobile-Former: the authors' counts, and the logits of a forward pass written out here from the paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import zoo_graph
from proof import counts, named_sizes, part, refused, same_as_formulas, trains, trains_on_meta
from torch import Tensor

# name; params and MACs of the authors' network at 224 (facts 0.3); sizes at which logits are compared
TABLE = [
    ("mobile_former_294m", 11_422_648, 286_732_160, [(224, 224), (96, 64), (72, 100)]),
    ("mobile_former_508m", 13_976_976, 498_467_680, [(64, 96)]),
]
NAMES = [row[0] for row in TABLE]

# Place and stride of the blocks that have tokens, in order (facts E)
BLOCKS = [
    *(("1.blocks.0", 2), ("1.blocks.1", 1), ("2.blocks.0", 2), ("2.blocks.1", 1), ("3.blocks.0", 2), ("3.blocks.1", 1)),
    *(("4.blocks.0", 1), ("4.blocks.1", 1), ("5.blocks.0", 2), ("5.blocks.1", 1), ("5.blocks.2", 1)),
]


def hsigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


def reference(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network as functions of the weights `w`."""

    def linear(x: Tensor, key: str) -> Tensor:
        return F.linear(x, w[f"{key}.weight"], w[f"{key}.bias"])

    def batch(x: Tensor, key: str) -> Tensor:
        values = (w[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-5)

    def layer(x: Tensor, key: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{key}.weight"], w[f"{key}.bias"], 1e-5)

    def conv(x: Tensor, key: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = w[f"{key}.conv.weight"]
        assert f"{key}.conv.bias" not in w
        groups = x.shape[1] if depthwise else 1
        assert weight.shape[1] == x.shape[1] // groups
        return batch(F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups), f"{key}.norm")

    def dynamic(x: Tensor, token: Tensor, key: str) -> Tensor:
        s = hsigmoid(linear(linear(token, f"{key}.fc1").relu(), f"{key}.fc2"))[:, :, None, None]
        a1, a2 = ((s - 0.5) * 2 + 1)[:, : x.shape[1]], ((s - 0.5) * 2)[:, x.shape[1] :]
        return torch.stack([a1 * x, a2 * x]).amax(0)

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        split = zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True)
        return torch.cat([(a @ b.mT * a.shape[-1] ** -0.5).softmax(-1) @ c for a, b, c in split], -1)

    def to_tokens(x: Tensor, z: Tensor, key: str) -> Tensor:
        rows = x.flatten(2).mT
        y = attend(linear(z, f"{key}.q"), rows, rows, 2) * 2 * hsigmoid(linear(z, f"{key}.gate"))
        return layer(z + linear(y, f"{key}.proj"), f"{key}.norm")

    x = F.relu6(conv(x, "stem.conv1", 2))
    y = F.relu6(conv(x, "stages.0.blocks.0.depthwise", depthwise=True))
    assert y.shape[1] == 2 * x.shape[1]
    x = x + conv(y, "stages.0.blocks.0.project")
    z = w["stages.0.blocks.1.tokens"].repeat(len(x), 1, 1)
    assert z.shape[1:] == (6, 192)
    for place, stride in BLOCKS:
        at = f"stages.{place}"
        z = to_tokens(x, z, f"{at}.to_tokens")
        z = layer(z + linear(attend(linear(z, f"{at}.former.q"), z, z, 4), f"{at}.former.proj"), f"{at}.former.norm1")
        hidden = F.gelu(linear(z, f"{at}.former.mlp.fc1"))
        assert hidden.shape[-1] == 384
        z = layer(z + linear(hidden, f"{at}.former.mlp.fc2"), f"{at}.former.norm2")
        at = f"{at}.mobile"
        if stride == 2:
            y = dynamic(conv(x, f"{at}.depthwise1", 2, depthwise=True), z[:, 0], f"{at}.act1")
            x = conv(y, f"{at}.project1")
            y = dynamic(conv(x, f"{at}.depthwise2", depthwise=True), z[:, 0], f"{at}.act2")
            assert y.shape[1] == 4 * x.shape[1]
            x = x + conv(y, f"{at}.project2")
        else:
            y = dynamic(conv(x, f"{at}.expand"), z[:, 0], f"{at}.act1")
            y = dynamic(conv(y, f"{at}.depthwise", depthwise=True), z[:, 0], f"{at}.act2")
            y = conv(y, f"{at}.project")
            x = x + y if x.shape == y.shape else y
        at = f"stages.{place}.to_map"
        y = attend(x.flatten(2).mT, linear(z, f"{at}.k"), linear(z, f"{at}.v"), 2)
        x = x + y.mT.reshape(x.shape)
    z = to_tokens(x, z, "head.to_tokens")
    pooled = F.relu6(conv(x, "head.conv")).mean((2, 3))
    y = torch.cat([pooled * hsigmoid(pooled), z[:, 0]], 1)
    y = batch(linear(y, "head.hidden"), "head.norm")
    return linear(y * hsigmoid(y), "head.head")


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_the_formulas(name: str, size: tuple[int, int]) -> None:
    same_as_formulas(name, size, reference, 1000)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


def test_parts() -> None:
    # Block 1 of stage 1 of 294M: 24 channels, expanded to 96, 56² positions beside 6 tokens of 192.
    graph, dim, hidden, positions = zoo_graph("mobile_former_294m"), 24, 96, 56 * 56
    block = "stages.1.blocks.1"
    bridge = 3 * 192 * dim  # q, gate, proj
    pairs = 2 * 6 * positions * dim
    assert part(graph, f"{block}.to_tokens.") == (bridge + 2 * dim + 192 + 2 * 192, 6 * bridge + pairs)
    assert part(graph, f"{block}.to_map.") == (2 * 192 * dim + 2 * dim, 6 * 2 * 192 * dim + pairs)
    former = 2 * 192 * 192 + 2 * 192 * 384
    assert part(graph, f"{block}.former.") == (former + 4 * 192 + 3 * 192 + 384, 6 * former + 2 * 6 * 6 * 192)
    slopes = 192 * 48 + 48 * 2 * hidden
    assert part(graph, f"{block}.mobile.act1.") == (slopes + 48 + 2 * hidden, slopes)
    assert part(graph, f"{block}.mobile.depthwise.") == (9 * hidden + 2 * hidden, 9 * hidden * positions)
    assert part(graph, "stages.0.blocks.1.") == (6 * 192, 0)


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains("mobile_former_294m", (64, 64))


def test_the_other_trains_on_meta() -> None:
    trains_on_meta("mobile_former_508m", (64, 64))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("stages: {1: {bridge_heads: 7}}", "bridge_heads 7 do not divide 16 channels"),
        ("stages: {0: {blocks: [lite_bottleneck]}}", "mobile_former takes 2 features, but 1 arrive"),
        ("stages: {1: {expansion: [2.5, 4]}}", "whole numbers"),
        ("head: {block: classifier}", "takes one feature, but 2 arrive"),
    ],
)
def test_what_cannot_be(tmp_path, change: str, text: str) -> None:
    refused(tmp_path, f"extends: mobile_former_294m\n{change}\n", text)
