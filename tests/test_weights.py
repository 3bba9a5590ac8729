"""Checkpoints of timm, of the papers' authors and of our own fill our networks exactly, or say clearly why not.

The authors' files cannot be downloaded here: theirs are synthesised from timm's weights by renaming timm's keys to the
authors' (facts A.7 and B.1), written out below as a table of its own, apart from the one under test.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
from networks import images, randomise, relative_error, zoo_model
from torch import Tensor, nn

from vitscope.model import fuse
from vitscope.weights import LoadReport, WeightsError, load_weights

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def references(timm: ModuleType) -> dict[str, nn.Module]:
    found = {}
    for name in ("efficientformerv2_s0", "efficientformer_l1", "mobilenetv2_100"):
        found[name] = timm.create_model(name).eval()
        randomise(found[name])
    return found


# timm's key → the authors' key, the reverse of what is under test
TO_AUTHORS_V2 = [
    (r"^stem\.conv1\.conv\.", "patch_embed.0."), (r"^stem\.conv1\.bn\.", "patch_embed.1."),
    (r"^stem\.conv2\.conv\.", "patch_embed.3."), (r"^stem\.conv2\.bn\.", "patch_embed.4."),
    (r"^stages\.3\.downsample\.conv\.conv\.", "network.5.conv."),
    (r"^stages\.3\.downsample\.conv\.bn\.", "network.5.bn."),
    (r"\.downsample\.conv\.conv\.", ".downsample.proj."), (r"\.downsample\.conv\.bn\.", ".downsample.norm."),
    (r"\.q\.local\.", ".q.local.0."), (r"\.q\.proj\.conv\.", ".q.proj.0."), (r"\.q\.proj\.bn\.", ".q.proj.1."),
    (r"(token_mixer|attn)\.proj\.conv\.", r"\1.proj.1."), (r"(token_mixer|attn)\.proj\.bn\.", r"\1.proj.2."),
    (r"\.(q|k|v|v_local|stride_conv)\.conv\.", r".\1.0."), (r"\.(q|k|v|v_local|stride_conv)\.bn\.", r".\1.1."),
    (r"\.fc1\.bn\.", ".norm1."), (r"\.mid\.bn\.", ".mid_norm."), (r"\.fc2\.bn\.", ".norm2."),
    (r"\.(fc1|mid|fc2)\.conv\.", r".\1."),
]  # fmt: skip
TO_AUTHORS_V1 = [
    (r"^stem\.conv1\.", "patch_embed.0."), (r"^stem\.norm1\.", "patch_embed.1."),
    (r"^stem\.conv2\.", "patch_embed.3."), (r"^stem\.norm2\.", "patch_embed.4."),
    (r"\.downsample\.conv\.", ".downsample.proj."),
]  # fmt: skip
TO_AUTHORS = [
    (r"^stages\.0\.blocks\.", "network.0."), (r"^stages\.1\.blocks\.", "network.2."),
    (r"^stages\.2\.blocks\.", "network.4."), (r"^stages\.3\.blocks\.", "network.6."),
    (r"^stages\.1\.downsample\.", "network.1."), (r"^stages\.2\.downsample\.", "network.3."),
    (r"^stages\.3\.downsample\.", "network.5."), (r"\.ls(\d)\.gamma$", r".layer_scale_\1"),
    (r"^head_dist\.", "dist_head."),
]  # fmt: skip


def authors_state(name: str, state: State) -> State:
    """What the authors' checkpoint of the same network would hold."""
    is_v2 = name.startswith("efficientformerv2")
    found: State = {}
    for key, tensor in state.items():
        for pattern, to in (*(TO_AUTHORS_V2 if is_v2 else TO_AUTHORS_V1), *TO_AUTHORS):
            key = re.sub(pattern, to, key)
        found[key] = tensor.reshape(-1, 1, 1) if is_v2 and ".layer_scale_" in key else tensor
        if is_v2 and key.endswith(".attention_biases"):  # persistent in theirs, not in timm
            found[key.replace("attention_biases", "attention_bias_idxs")] = torch.zeros(49, 49, dtype=torch.int64)
    assert not any(re.match(r"stem|stages|.*\.gamma", key) for key in found)
    return found


def same_logits(ours: nn.Module, theirs: nn.Module) -> bool:
    x = images(224, 224)
    with torch.no_grad():
        return relative_error(ours(x), theirs(x)) < 1e-5


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "efficientformer_l1", "mobilenetv2_100"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_timm_files(references: dict[str, nn.Module], tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = references[name].state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    ours = zoo_model(name)
    report = load_weights(ours, path)
    assert report.naming.startswith("timm ")
    assert report.num_tensors == len(ours.state_dict()) == len(state) - len(report.dropped)
    assert report.params == sum(p.numel() for p in references[name].parameters())
    assert same_logits(ours, references[name])


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "efficientformer_l1"])
def test_authors_files(references: dict[str, nn.Module], tmp_path: Path, name: str) -> None:
    path = tmp_path / "authors.pth"
    state = authors_state(name, references[name].state_dict())
    # What DeiT's training script, which theirs descends from, writes.
    torch.save({"model": state, "epoch": 299, "args": argparse.Namespace(lr=1e-3, model=name)}, path)
    ours = zoo_model(name)
    report = load_weights(ours, path)
    assert report.naming.startswith("authors' ")
    assert report.dropped == tuple(key for key in state if key.endswith("attention_bias_idxs"))
    assert same_logits(ours, references[name])


WRAPPINGS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "arch": "x"},
    "module.": lambda state: {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}},
    "model in state_dict": lambda state: {"state_dict": {"model": state}},
    "without counters": lambda state: {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")},
    "half precision": lambda state: {k: t.half() if t.is_floating_point() else t for k, t in state.items()},
    "old format": lambda state: state,
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_our_own_files_in_any_wrapping(tmp_path: Path, wrapping: str) -> None:
    source, target = zoo_model("efficientformerv2_s0"), zoo_model("efficientformerv2_s0")
    randomise(source)
    path = tmp_path / "ours.pt"
    torch.save(
        WRAPPINGS[wrapping](dict(source.state_dict())), path,
        _use_new_zipfile_serialization=wrapping != "old format",
    )  # fmt: skip
    report = load_weights(target, path)
    assert report.naming == "vitscope"
    expected = {k: t for k, t in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    if wrapping == "half precision":
        expected = {k: t.half().to(t.dtype) for k, t in expected.items()}
    found = target.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_a_fused_network_takes_a_fused_file(tmp_path: Path) -> None:
    source = fuse(zoo_model("efficientformerv2_s0"))
    target = fuse(zoo_model("efficientformerv2_s0"))
    torch.save(source.state_dict(), tmp_path / "fused.pth")
    report = load_weights(target, tmp_path / "fused.pth")
    assert report == LoadReport(str(tmp_path / "fused.pth"), "vitscope", len(target.state_dict()), 3_371_960)


# --- What does not fit: every finding, and the reason a person would give. ---


def refusal(model: nn.Module, state: object, path: Path) -> list[str]:
    """The lines of the error; the network must be as it was."""
    torch.save(state, path)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert caught.value.exit_code == 2
    return [line.replace(str(path), "FILE") for line in str(caught.value).splitlines()]


def test_another_resolution(timm: ModuleType, tmp_path: Path) -> None:
    theirs = timm.create_model("efficientformerv2_s0", img_size=256)
    assert refusal(zoo_model("efficientformerv2_s0"), theirs.state_dict(), tmp_path / "x.pth") == [
        "FILE: does not fit this network: 563 of its 568 tensors fit (the file's names are timm EfficientFormerV2)",
        "  stages.2.blocks.4.token_mixer.bias.table: 8×64 in the file, 8×49 here",
        "  stages.2.blocks.5.token_mixer.bias.table: 8×64 in the file, 8×49 here",
        "  stages.3.downsample.attn.bias.table: 8×256 in the file, 8×196 here",
        "  stages.3.blocks.2.token_mixer.bias.table: 8×64 in the file, 8×49 here",
        "  … and 1 more like this",
        "  → attention bias tables of 64 positions in the file, 49 here: another resolution; 256×256 would fit, "
        "this network is for 224×224",
    ]


def test_a_rectangle(timm: ModuleType, tmp_path: Path) -> None:
    theirs = timm.create_model("efficientformerv2_s0", img_size=(224, 288))
    lines = refusal(zoo_model("efficientformerv2_s0"), theirs.state_dict(), tmp_path / "x.pth")
    assert "224×288 would fit" in lines[-1]


def test_other_classes(timm: ModuleType, tmp_path: Path) -> None:
    theirs = timm.create_model("mobilenetv2_100", num_classes=10)
    assert refusal(zoo_model("mobilenetv2_100"), theirs.state_dict(), tmp_path / "x.pth") == [
        "FILE: does not fit this network: 312 of its 314 tensors fit (the file's names are timm MobileNet)",
        "  head.head.weight: 10×1280 in the file, 1000×1280 here",
        "  head.head.bias: 10 in the file, 1000 here",
        "  → the file is for 10 classes, this network for 1000: head.classes=10 would fit",
    ]


def test_another_network_of_the_family(references: dict[str, nn.Module], tmp_path: Path) -> None:
    state = references["efficientformerv2_s0"].state_dict()
    lines = refusal(zoo_model("efficientformerv2_s1"), state, tmp_path / "x.pth")
    assert lines[-1] == "  → the file has depths 2,2,6,4, this network has depths 3,3,9,6: another network"


def test_another_family(references: dict[str, nn.Module], tmp_path: Path) -> None:
    state = references["mobilenetv2_100"].state_dict()
    lines = refusal(zoo_model("efficientformerv2_s0"), state, tmp_path / "x.pth")
    assert lines[0].startswith("FILE: does not fit this network: ")
    assert lines[-1].endswith("another network")


def test_one_head_or_two(timm: ModuleType, tmp_path: Path) -> None:
    theirs = timm.create_model("efficientformerv2_s0", distillation=False)
    lines = refusal(zoo_model("efficientformerv2_s0"), theirs.state_dict(), tmp_path / "x.pth")
    assert lines[1:] == [
        "  head.head_dist.weight: not in the file",
        "  head.head_dist.bias: not in the file",
        "  → the file has one head, this network two: head.block=classifier would fit",
    ]
    single = zoo_model("efficientformerv2_s0", overrides=("head.block=classifier",))
    load_weights(single, tmp_path / "x.pth")
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "y.pth")
    load_weights(single, tmp_path / "y.pth")
    assert same_logits(single, theirs.eval())


def test_a_fused_file_for_a_training_network(tmp_path: Path) -> None:
    state = fuse(zoo_model("efficientformerv2_s0", overrides=("head.block=classifier",))).state_dict()
    lines = refusal(zoo_model("efficientformerv2_s0", overrides=("head.block=classifier",)), state, tmp_path / "x.pth")
    assert lines[-1].startswith("  → the file has no norms: it looks fused")


def test_missing_surplus_and_double(references: dict[str, nn.Module], tmp_path: Path) -> None:
    state = dict(references["efficientformerv2_s0"].state_dict())
    state["extra.weight"] = torch.zeros(3)
    del state["stages.0.blocks.0.ls2.gamma"]
    state["stages.0.blocks.0.mlp.mid.norm.bias"] = state["stages.0.blocks.0.mlp.mid.bn.bias"]  # our name beside timm's
    lines = refusal(zoo_model("efficientformerv2_s0"), state, tmp_path / "x.pth")
    place = "stages.0.blocks.0.mlp.mid"
    assert f"  {place}.norm.bias: given twice, by {place}.bn.bias and {place}.norm.bias" in lines
    assert "  stages.0.blocks.0.ls2.gamma: not in the file" in lines
    assert "  extra.weight: in the file, but without a place here" in lines


def test_weights_of_something_else(tmp_path: Path) -> None:
    assert refusal(zoo_model("efficientformerv2_s0"), {"encoder.w": torch.zeros(2)}, tmp_path / "x.pth") == [
        "FILE: its names, as 'encoder.w', are neither ours nor of a family whose weights can be read"
    ]


# --- What is no checkpoint: one line. ---


class Payload:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch unpickled",)


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / ("bad.safetensors" if kind == "not safetensors" else "bad.pth")
    match kind:
        case "directory":
            path.mkdir()
        case "empty":
            path.touch()
        case "text" | "not safetensors":
            path.write_text("epoch,loss\n1,2.3\n")
        case "image":
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        case "cut short":
            torch.save({"a": torch.zeros(1000)}, path)
            path.write_bytes(path.read_bytes()[:900])
        case "zip":
            path.write_bytes(b"PK\x03\x04" + bytes(200))
        case "code":
            torch.save({"model": Payload()}, path)
        case "whole module":
            torch.save(nn.Linear(2, 2), path)
        case "torchscript":
            torch.jit.script(nn.Linear(2, 2)).save(str(path))
        case "number":
            torch.save(3, path)
        case "no tensors":
            torch.save({"model": {}, "epoch": 3}, path)
        case "mixed":
            torch.save({"weight": torch.zeros(2), "epoch": 3}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("directory", "is a directory, expected a checkpoint file"),
        ("empty", "empty, expected a .pth or .pt file of tensors, or a .safetensors file"),
        ("text", "not a checkpoint of torch.save"),
        ("image", "not a checkpoint of torch.save"),
        ("not safetensors", "not a safetensors file"),
        ("cut short", "damaged, or not a checkpoint"),
        ("zip", "damaged, or not a checkpoint"),
        ("code", "holds Python objects besides tensors, and reading them could run code"),
        ("whole module", "holds Python objects besides tensors"),
        ("torchscript", "a TorchScript archive, expected a state_dict"),
        ("number", "holds an object of type int, expected a state_dict"),
        ("no tensors", "holds an empty mapping, expected a state_dict"),
        ("mixed", "'epoch' is an object of type int, expected a state_dict"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_file_that_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = bad_file(kind, tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_weights(nn.Linear(2, 2), path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {says}")
    assert "\n" not in message
    assert not (tmp_path / "unpickled").exists()
