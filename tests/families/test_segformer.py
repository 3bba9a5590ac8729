"""SegFormer: the authors' counts, and the logits of a forward pass written out here from the paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import zoo_graph
from proof import counts, named_sizes, part, refused, same_as_formulas, trains, trains_on_meta
from torch import Tensor

from vitscope.spec import load_spec

# name; params and MACs of the backbone at 512 (facts 0.3); params of the head (facts E; of B1 by the same formula);
# sizes at which logits are compared, on the second of which some sides are odd and the reduced map is cut off
TABLE = [
    ("segformer_b0_ade20k", 3_319_392, 3_203_661_824, 433_302, [(128, 128), (72, 100), (64, 96)]),
    ("segformer_b1_ade20k", 13_151_424, 10_433_855_488, 564_374, [(64, 32)]),
]
NAMES = [row[0] for row in TABLE]


def head_macs(widths: list[int], classes: int, height: int, width: int) -> int:
    """Each stage to 256 on its own grid; four times 256 to 256 and to the classes on that of stride 4."""
    own = sum(dim * 256 * (height >> i + 2) * (width >> i + 2) for i, dim in enumerate(widths))
    return own + (4 * 256 * 256 + 256 * classes) * (height // 4) * (width // 4)


def reference(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network as functions of the weights `w`."""

    def conv(x: Tensor, key: str, **options: int) -> Tensor:
        return F.conv2d(x, w[f"{key}.weight"], w.get(f"{key}.bias"), **options)

    def linear(x: Tensor, key: str) -> Tensor:
        return F.linear(x, w[f"{key}.weight"], w[f"{key}.bias"])

    def layer(x: Tensor, key: str, eps: float) -> Tensor:  # over the channels of a map
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2], w[f"{key}.weight"], w[f"{key}.bias"], eps).movedim(-1, 1)

    outputs = []
    x = layer(conv(x, "stem.conv", stride=4, padding=3), "stem.norm", 1e-5)
    for i, (num_heads, reduction) in enumerate(((1, 8), (2, 4), (5, 2), (8, 1))):
        at = f"stages.{i}"
        if i:
            x = layer(conv(x, f"{at}.downsample.conv", stride=2, padding=1), f"{at}.downsample.norm", 1e-5)
        for block in (f"{at}.blocks.0", f"{at}.blocks.1"):
            y = layer(x, f"{block}.norm1", 1e-6)
            small = y
            if reduction > 1:
                small = layer(conv(y, f"{block}.attn.reduce", stride=reduction), f"{block}.attn.norm", 1e-5)
            q = linear(y.flatten(2).mT, f"{block}.attn.q")
            k, v = linear(small.flatten(2).mT, f"{block}.attn.kv").chunk(2, -1)
            heads = zip(q.chunk(num_heads, -1), k.chunk(num_heads, -1), v.chunk(num_heads, -1), strict=True)
            y = torch.cat([(q1 @ k1.mT / q1.shape[-1] ** 0.5).softmax(-1) @ v1 for q1, k1, v1 in heads], -1)
            x = x + linear(y, f"{block}.attn.proj").mT.reshape(x.shape)
            y = conv(layer(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1")
            y = F.gelu(conv(y, f"{block}.mlp.depthwise", padding=1, groups=y.shape[1]))
            x = x + conv(y, f"{block}.mlp.fc2")
        x = layer(x, f"{at}.blocks.2.norm", 1e-6)
        outputs.append(x)
    maps = []
    for n, x in enumerate(reversed(outputs)):
        y = conv(x, f"head.inputs.{n}")
        maps.append(F.interpolate(y, outputs[0].shape[2:], mode="bilinear", align_corners=False))
    y = conv(torch.cat(maps, 1), "head.merge.conv")
    values = (w[f"head.merge.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return conv(F.batch_norm(y, *values, eps=1e-5).relu(), "head.head")


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_the_formulas(name: str, size: tuple[int, int]) -> None:
    same_as_formulas(name, size, reference, 150, size[0] // 4, size[1] // 4)


@pytest.mark.parametrize(("name", "params", "core", "head"), [row[:4] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int, head: int) -> None:
    spec, graph = load_spec(name), zoo_graph(name)
    macs = head_macs([stage.width for stage in spec.stages], 150, 512, 512)
    assert part(graph, "head.") == (head, macs)
    counts(name, params + head, core + macs)


def test_the_total_of_b0_is_the_authors() -> None:
    assert part(zoo_graph("segformer_b0_ade20k"))[0] == 3_752_694


def test_cityscapes() -> None:
    graph = zoo_graph("segformer_b1_cityscapes")
    macs = head_macs([64, 128, 320, 512], 19, 1024, 2048)
    assert part(graph, "head.") == (564_374 - 131 * 257, macs)
    # Eight times the positions of 512×512: eight times the layers, and 64 times the pairs of attention.
    pairs = sum(2 * 2 * dim * 16 * 16 * (128 >> i) ** 2 for i, dim in enumerate((64, 128, 320, 512)))
    backbone = TABLE[1][2]
    assert part(graph) == (TABLE[1][1] + 564_374 - 131 * 257, 8 * (backbone - pairs) + 64 * pairs + macs)


def test_parts() -> None:
    # Block 0 of stage 0 of B0: 32 channels in one head, 128² positions that attend to 16².
    graph, dim, tokens, reduced = zoo_graph("segformer_b0_ade20k"), 32, 128 * 128, 16 * 16
    block = "stages.0.blocks.0"
    assert part(graph, f"{block}.attn.reduce.") == (64 * dim * dim + dim, 64 * dim * dim * reduced)
    square, pairs = dim * dim, 2 * dim * tokens * reduced
    linears = 2 * square * tokens + 2 * square * reduced
    assert part(graph, f"{block}.attn.")[1] == linears + 64 * square * reduced + pairs
    assert part(graph, f"{block}.mlp.") == (8 * square + 36 * dim + 9 * dim, (8 * square + 36 * dim) * tokens)
    assert part(graph, "stages.0.blocks.2.") == (2 * dim, 0)


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains("segformer_b0_ade20k", (64, 64), grid=(16, 16))


def test_the_other_trains_on_meta() -> None:
    trains_on_meta("segformer_b1_ade20k", (64, 64))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("stages: {1: {num_heads: 5}}", "5 heads do not divide 64 channels"),
        ("stages: {3: {reduction: 32}}", "reduction 32 leaves nothing of the 16×16 map"),
        ("head: {num_stages: 5}", "there are 4 stages"),
    ],
)
def test_what_cannot_be(tmp_path, change: str, text: str) -> None:
    refused(tmp_path, f"extends: segformer_b0_ade20k\n{change}\n", text)
