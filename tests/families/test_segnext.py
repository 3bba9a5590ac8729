"""SegNeXt: the authors' counts, and the logits of a forward pass written out here from the paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomise, relative_error, zoo_graph, zoo_model
from proof import TOLERANCE, counts, named_sizes, part, refused, same_as_formulas, trains, trains_on_meta
from torch import Tensor, nn

from vitscope.blocks.layers import LayerScale
from vitscope.cost.conventions import params_and_macs
from vitscope.model import fuse
from vitscope.spec import load_spec

# name; params and MACs of the backbone at 512 (facts 0.3); params in all (facts E); widths of the stages; sizes at
# which logits are compared, on the second of which sides are odd
TABLE = [
    ("segnext_t_ade20k", 3_903_584, 4_636_508_160, 4_263_414, (32, 64, 160, 256), [(128, 128), (72, 100), (64, 96)]),
    ("segnext_s_ade20k", 13_450_176, 13_375_111_168, 13_932_886, (64, 128, 320, 512), [(32, 64)]),
]
NAMES = [row[0] for row in TABLE]


def head_macs(widths: tuple[int, ...], classes: int, positions: int) -> int:
    """Squeeze, three 1×1 of 256 and the classes; first codes, seven updates of codes and bases, one more, the product."""
    layers = (sum(widths[1:]) * 256 + 3 * 256 * 256 + 256 * classes) * positions
    product = positions * 256 * 16
    update_codes = product + 16 * 256 * 16 + positions * 16 * 16
    update_bases = product + 16 * positions * 16 + 256 * 16 * 16
    return layers + product + 7 * (update_codes + update_bases) + update_codes + product


def reference(w: dict[str, Tensor], x: Tensor, depths: list[int], steps: int = 7) -> Tensor:
    """The network as functions of the weights `w`."""

    def conv(x: Tensor, key: str, padding: int | tuple[int, int] = 0, **options: int) -> Tensor:
        return F.conv2d(x, w[f"{key}.weight"], w.get(f"{key}.bias"), padding=padding, **options)

    def depthwise(x: Tensor, key: str, height: int, width: int) -> Tensor:
        assert w[f"{key}.weight"].shape == (x.shape[1], 1, height, width)
        return conv(x, key, (height // 2, width // 2), groups=x.shape[1])

    def batch(x: Tensor, key: str) -> Tensor:
        values = (w[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-5)

    def conv_group(x: Tensor, key: str) -> Tensor:
        assert f"{key}.conv.bias" not in w
        return F.group_norm(conv(x, f"{key}.conv"), 32, w[f"{key}.norm.weight"], w[f"{key}.norm.bias"])

    def gain(key: str) -> Tensor:
        return w[f"{key}.gamma"][:, None, None]

    x = F.gelu(batch(conv(x, "stem.conv1.conv", 1, stride=2), "stem.conv1.norm"))
    x = batch(conv(x, "stem.conv2.conv", 1, stride=2), "stem.conv2.norm")
    outputs = []
    for i, depth in enumerate(depths):
        if i:
            x = batch(conv(x, f"stages.{i}.downsample.conv", 1, stride=2), f"stages.{i}.downsample.norm")
        for at in (f"stages.{i}.blocks.{j}" for j in range(depth)):
            y = batch(x, f"{at}.norm1")
            u = F.gelu(conv(y, f"{at}.expand"))
            a = depthwise(u, f"{at}.gate.near", 5, 5)
            total = a
            for n, k in enumerate((7, 11, 21)):
                total = total + depthwise(depthwise(a, f"{at}.gate.rows.{n}", 1, k), f"{at}.gate.columns.{n}", k, 1)
            y = y + conv(conv(total, f"{at}.gate.mix") * u, f"{at}.project")
            x = x + gain(f"{at}.ls1") * y
            y = depthwise(conv(batch(x, f"{at}.norm2"), f"{at}.mlp.fc1"), f"{at}.mlp.depthwise", 3, 3)
            x = x + gain(f"{at}.ls2") * conv(F.gelu(y), f"{at}.mlp.fc2")
        key = f"stages.{i}.blocks.{depth}.norm"
        x = F.layer_norm(x.movedim(1, -1), x.shape[1:2], w[f"{key}.weight"], w[f"{key}.bias"], 1e-5).movedim(-1, 1)
        outputs.append(x)
    grid = outputs[1].shape[2:]
    maps = [F.interpolate(y, grid, mode="bilinear", align_corners=False) for y in outputs[1:]]
    x = conv_group(torch.cat(maps, 1), "head.squeeze").relu()
    m = conv(x, "head.lower").relu().flatten(2)  # (B, D, T)
    d = F.normalize(torch.rand(256, 16, generator=torch.Generator().manual_seed(0)), dim=0).repeat(len(m), 1, 1)
    c = torch.einsum("bdt,bdr->btr", m, d).softmax(-1)
    for step in range(steps + 1):
        c = c * torch.einsum("bdt,bdr->btr", m, d) / (torch.einsum("btr,bdr,bds->bts", c, d, d) + 1e-6)
        if step < steps:
            d = d * torch.einsum("bdt,btr->bdr", m, c) / (torch.einsum("bdr,btr,bts->bds", d, c, c) + 1e-6)
    y = torch.einsum("bdr,btr->bdt", d, c).reshape(x.shape)
    x = (x + conv_group(y, "head.lift")).relu()
    return conv(conv_group(x, "head.align").relu(), "head.head")


def depths_of(name: str) -> list[int]:
    return [len(stage.blocks) - 1 for stage in load_spec(name).stages]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_the_formulas(name: str, size: tuple[int, int]) -> None:
    same_as_formulas(
        name, size, lambda values, x: reference(values, x, depths_of(name)), 150, -(-size[0] // 8), -(-size[1] // 8)
    )


def test_six_updates_in_training() -> None:
    model, x = zoo_model("segnext_t_ade20k", (64, 64)), images(64, 64)
    randomise(model)
    model.head.ham.train()  # type: ignore[union-attr]
    with torch.no_grad():
        assert relative_error(model(x), reference(model.state_dict(), x, [3, 3, 5, 2], steps=6)) < TOLERANCE


@pytest.mark.parametrize(("name", "params", "core", "total", "widths"), [row[:5] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int, total: int, widths: tuple[int, ...]) -> None:
    macs = head_macs(widths, 150, 64 * 64)
    assert part(zoo_graph(name), "head.") == (total - params, macs)
    counts(name, total, core + macs)


@pytest.mark.parametrize(("name", "params", "core", "total", "widths"), [row[:5] for row in TABLE], ids=NAMES)
def test_segnext_t_cityscapes_and_segnext_s_cityscapes(
    name: str, params: int, core: int, total: int, widths: tuple[int, ...]
) -> None:
    # No attention among positions: eight times those of 512×512 are eight times the work.
    graph = zoo_graph(name.replace("ade20k", "cityscapes"))
    assert part(graph) == (total - 131 * 257, 8 * core + head_macs(widths, 19, 128 * 256))


@pytest.mark.parametrize(
    ("name", "printed"),
    [("t_ade20k", "6.6"), ("s_ade20k", "16"), ("t_cityscapes", "51"), ("s_cityscapes", "125")],
)
def test_the_printed_macs_are_fvcores_with_the_logits_resized(name: str, printed: str) -> None:
    graph, spec = zoo_graph(f"segnext_{name}"), load_spec(f"segnext_{name}")
    resize = 4 * spec.head.classes * spec.input[1] * spec.input[2]  # type: ignore[union-attr]
    found = (params_and_macs(graph, "fvcore")[1] + resize) / 1e9
    assert f"{found:.1f}" == printed if "." in printed else f"{found:.0f}" == printed


def test_parts() -> None:
    # Block 0 of stage 0 of T: 32 channels, 128² positions.
    graph, dim, positions = zoo_graph("segnext_t_ade20k"), 32, 128 * 128
    block = "stages.0.blocks.0"
    kernels = (25 + 2 * (7 + 11 + 21)) * dim
    assert part(graph, f"{block}.gate.") == (kernels + 7 * dim + dim * dim + dim, (kernels + dim * dim) * positions)
    assert part(graph, f"{block}.mlp.") == (
        16 * dim * dim + 72 * dim + 17 * dim,
        (16 * dim * dim + 72 * dim) * positions,
    )
    assert part(graph, "head.ham.")[0] == 0


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains("segnext_t_ade20k", (64, 64), grid=(8, 8))


def test_the_other_trains_on_meta() -> None:
    trains_on_meta("segnext_s_ade20k", (64, 64))


def test_two_builds_agree_on_the_bases() -> None:
    a, b = (dict(zoo_model("segnext_t_ade20k", (64, 64)).named_buffers())["head.ham.bases"] for _ in range(2))
    assert torch.equal(a, b)
    assert torch.allclose(a.norm(dim=0), torch.ones(16))


def test_fuse_leaves_one_gain_a_block() -> None:
    model = fuse(zoo_model("segnext_t_ade20k", (64, 64)))
    assert sum(isinstance(m, LayerScale) for m in model.modules()) == 3 + 3 + 5 + 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("head: {groups: 30}", "30 groups do not divide width 256"),
        ("stages: {0: {expansion: 0.01}}", "leaves no hidden channel"),
    ],
)
def test_what_cannot_be(tmp_path, change: str, text: str) -> None:
    refused(tmp_path, f"extends: segnext_t_ade20k\n{change}\n", text)
