"""Every network of the zoo that timm has gives timm's logits with timm's weights, and has timm's parameter count."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomise, relative_error, zoo_model
from torch import nn

from vitscope.blocks.efficientformer import BiasTable, MapAttention
from vitscope.weights import load_state

TOLERANCE = 1e-5

V2_SIZES = [(224, 224), (192, 192), (256, 256), (224, 288)]  # height, width; the last is no square

# name in the zoo, which is also timm's; input sizes; whether timm must be told the size (its tables depend on it)
TABLE = [
    ("efficientformerv2_s0", V2_SIZES, True),
    ("efficientformerv2_s1", V2_SIZES, True),
    ("efficientformerv2_s2", V2_SIZES, True),
    ("efficientformerv2_l", [(224, 224)], True),
    ("efficientformer_l1", [(224, 224)], False),  # timm's V1 takes 224 alone
    ("efficientformer_l3", [(224, 224)], False),
    ("efficientformer_l7", [(224, 224)], False),
    ("mobilenetv2_100", [(224, 224), (192, 256)], False),
    ("mobilenetv2_140", [(224, 224)], False),
]


def reference(timm: ModuleType, name: str, size: tuple[int, int], sized: bool = True) -> nn.Module:
    model = timm.create_model(name, **({"img_size": size} if sized else {})).eval()
    randomise(model)
    return model


@pytest.mark.parametrize(
    ("name", "size", "sized"),
    [pytest.param(n, s, sized, id=f"{n}-{s[0]}x{s[1]}") for n, sizes, sized in TABLE for s in sizes],
)
def test_same_logits_and_params_as_timm(timm: ModuleType, name: str, size: tuple[int, int], sized: bool) -> None:
    theirs = reference(timm, name, size, sized)
    ours = zoo_model(name, size)
    load_state(ours, theirs.state_dict())
    x = images(*size)
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) < TOLERANCE
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


# --- The threshold means something: each of these mistakes breaks it. ---


def tanh_gelu(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def aligned_corners(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    interpolate = F.interpolate

    def aligned(*args: object, **kwargs: object) -> torch.Tensor:
        kwargs["align_corners"] = True
        return interpolate(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "interpolate", aligned)


def nearest_resize(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda x, scale_factor, **_: interpolate(x, scale_factor=scale_factor))


def no_bias_table(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, BiasTable):
            nn.init.zeros_(module.table)


def other_norm_eps(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def heads_talk_once(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, MapAttention):
            module.talking_head2 = nn.Identity()


def one_head(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model.head.head_dist = model.head.head  # type: ignore[union-attr]


MISTAKES = [tanh_gelu, aligned_corners, nearest_resize, no_bias_table, other_norm_eps, heads_talk_once, one_head]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, monkeypatch: pytest.MonkeyPatch, mistake) -> None:
    theirs = reference(timm, "efficientformerv2_s0", (224, 224))
    ours = zoo_model("efficientformerv2_s0")
    load_state(ours, theirs.state_dict())
    x = images(224, 224)
    with torch.no_grad():
        expected = theirs(x)
        mistake(ours, monkeypatch)
        assert relative_error(ours(x), expected) > TOLERANCE


@pytest.mark.parametrize("layout", ["swapped", "interleaved wrongly"])
def test_the_order_of_query_key_and_value_matters(timm: ModuleType, layout: str) -> None:
    # V1 keeps q, k and v of one head together; q‖k‖v of all heads would load without complaint.
    theirs = reference(timm, "efficientformer_l1", (224, 224), sized=False)
    ours = zoo_model("efficientformer_l1")
    load_state(ours, theirs.state_dict())
    x = images(224, 224)
    with torch.no_grad():
        for key, tensor in ours.state_dict().items():
            if ".qkv." in key:
                heads = tensor.reshape(8, 192, *tensor.shape[1:])
                q, k, v = heads.split([32, 32, 128], dim=1)
                parts = [k, q, v] if layout == "swapped" else [q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)]
                tensor.copy_(torch.cat(parts, dim=1 if layout == "swapped" else 0).reshape(tensor.shape))
        # A swap of q and k transposes the logits, whose bias is symmetric; the softmax over keys still tells them apart.
        assert relative_error(ours(x), theirs(x)) > TOLERANCE
