"""fuse() changes what a network is made of and nothing that it computes; the train form trains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import FOUNDERS, images, randomise, relative_error, zoo_graph, zoo_model
from torch import Tensor, nn

from vitscope.blocks.layers import DropPath
from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec

# V1 and the first rungs of the ladder have bias tables for one size alone, which build() makes for any size.
LARGE = {"efficientformer_l7", "efficientformer_l3", "efficientformerv2_l"}

# Facts A.6 for V2: BN folded, heads merged, layer scale folded.
# B.1 for V1 gives BN folded and heads merged; layer scales fold too, except those of the pooling mixers (ls1 of MB4D):
# widths × (MB4D blocks · ls2 + MB3D blocks · (ls1 + ls2)).
DEPLOY_PARAMS = {
    "efficientformerv2_s0": 3_371_960,
    "efficientformerv2_s1": 5_886_296,
    "efficientformerv2_s2": 12_293_176,
    "efficientformerv2_l": 25_730_088,
    "efficientformer_l1": 11_809_008 - (3 * 48 + 2 * 96 + 6 * 224 + 3 * 448) - 1 * 2 * 448,
    "efficientformer_l3": 30_834_568 - (4 * 64 + 4 * 128 + 12 * 320 + 2 * 512) - 4 * 2 * 512,
    "efficientformer_l7": 81_370_952 - (6 * 96 + 6 * 192 + 18 * 384) - 8 * 2 * 768,
    # No bias in front of BN: for a channel, gain and shift go and a bias comes. Stem, then units as (hidden, hidden, out).
    "mobilenetv2_100": 3_504_872
    - 32 - (32 + 16) - (96 * 2 + 24) - (144 * 2 + 24) - (144 * 2 + 32) - 2 * (192 * 2 + 32) - (192 * 2 + 64)
    - 3 * (384 * 2 + 64) - (384 * 2 + 96) - 2 * (576 * 2 + 96) - (576 * 2 + 160) - 2 * (960 * 2 + 160)
    - (960 * 2 + 320) - 1280,
    "mobilenetv2_140": 6_108_776
    - 48 - (48 + 24) - (144 * 2 + 32) - (192 * 2 + 32) - (192 * 2 + 48) - 2 * (288 * 2 + 48) - (288 * 2 + 88)
    - 3 * (528 * 2 + 88) - (528 * 2 + 136) - 2 * (816 * 2 + 136) - (816 * 2 + 224) - 2 * (1344 * 2 + 224)
    - (1344 * 2 + 448) - 1792,
}  # fmt: skip


def num_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", FOUNDERS)
def test_fuse_keeps_the_outputs(name: str) -> None:
    model = zoo_model(name)
    randomise(model)
    train_params = num_params(model)
    fused = fuse(model)
    x = images(224, 224)
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) < 1e-5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert num_params(model) == train_params, "fuse() works on a copy"
    assert num_params(fused) < train_params
    assert num_params(fused) == DEPLOY_PARAMS.get(name, num_params(fused))


def test_every_published_deploy_count_is_tested() -> None:
    assert DEPLOY_PARAMS.keys() <= set(FOUNDERS)
    assert {n for n in FOUNDERS if "ladder" not in n} == DEPLOY_PARAMS.keys()


@pytest.mark.parametrize("name", FOUNDERS)
def test_fuse_on_meta_has_the_same_parameters_as_with_values(name: str) -> None:
    # Costs of the deploy form are counted on the meta device; layers must change there as they do on the CPU.
    with torch.device("meta"):
        model = build(load_spec(name))
        fuse_in_place(model.eval())
    on_cpu = fuse(zoo_model(name))
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in on_cpu.state_dict().items()}


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "efficientformer_l1", "mobilenetv2_100"])
def test_fuse_twice_is_fuse_once(name: str) -> None:
    fused = fuse(zoo_model(name))
    again = fuse(fused)
    assert all(torch.equal(a, b) for a, b in zip(fused.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", [name for name in FOUNDERS if name not in LARGE])
@pytest.mark.parametrize("size", [(192, 192), (256, 224)])
def test_other_input_sizes(name: str, size: tuple[int, int]) -> None:
    model = zoo_model(name, size)
    randomise(model)
    x = images(*size)
    with torch.no_grad():
        expected = model(x)
        assert expected.shape == (2, 1000)
        assert relative_error(fuse(model)(x), expected) < 1e-5


def loss(outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    """Cross entropy; of a pair, the mean of both heads (the teacher's labels are the same here)."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum((F.cross_entropy(head, labels) for head in heads), torch.zeros(())) / len(heads)


@pytest.mark.parametrize("name", [name for name in FOUNDERS if name not in LARGE])
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = build(load_spec(name))
    assert model.training
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    randomise(model)  # at 1e-5, layer scale would leave some gradients too small to tell from none
    x, labels = images(224, 224), torch.tensor([3, 700])
    outputs = model(x)
    assert isinstance(outputs, tuple) == (load_spec(name).head.kind == "distilled_classifier")
    before = loss(outputs, labels)
    before.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    optimiser.step()
    assert loss(model(x), labels) < before


def test_a_distilled_head_gives_its_pair_while_training_and_their_average_in_eval_mode() -> None:
    model = zoo_model("efficientformerv2_s0")
    randomise(model)
    with torch.no_grad():
        features = model.stages(model.stem(images(224, 224)))
        average = model.head(features)
        model.head.training = True  # the head alone: the norm before it keeps its statistics
        label, teacher = model.head(features)
    assert torch.equal(average, (label + teacher) / 2)
    assert not torch.allclose(label, teacher)


@pytest.mark.parametrize(
    ("name", "rate", "num_blocks"), [("efficientformerv2_s2", 0.02, 28), ("efficientformerv2_l", 0.1, 35)]
)
def test_drop_path_rises_linearly_over_the_blocks(name: str, rate: float, num_blocks: int) -> None:
    with torch.device("meta"):
        model = build(load_spec(name))
    found = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert found == pytest.approx([rate * k / (num_blocks - 1) for k in range(num_blocks)])


def test_drop_path_scales_what_it_keeps_and_rests_in_eval_mode() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 3, 2, 2)
    y = drop(x)
    kept = y[:, 0, 0, 0] != 0
    assert torch.equal(y[kept], torch.full_like(y[kept], 1 / 0.75))
    assert abs(kept.float().mean() - 0.75) < 0.03
    assert torch.equal(y, y[:, :1, :1, :1].expand_as(y)), "a branch is dropped whole, image by image"
    assert drop.eval()(x) is x


def test_drop_path_leaves_no_record_in_the_graph() -> None:
    names = {op.op for op in zoo_graph("efficientformerv2_s2").ops}
    assert not names & {"bernoulli", "bernoulli_", "native_dropout"}
