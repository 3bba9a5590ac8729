"""build(spec): an architecture as a plain nn.Module that trains and runs. fuse(model): its train form → deploy form."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from vitscope.blocks import build_block
from vitscope.blocks.layers import DropPath
from vitscope.spec.flow import flow
from vitscope.spec.value import Spec


class Stage(nn.Module):
    """An optional downsampling block, then blocks at one resolution."""

    def __init__(self, downsample: nn.Module | None, blocks: list[nn.Module]):
        super().__init__()
        self.downsample = downsample if downsample is not None else nn.Identity()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Any) -> Any:
        x = _call(self.downsample, x)
        for block in self.blocks:
            x = _call(block, x)
        return x


def _call(module: nn.Module, x: Any) -> Any:
    """`module` on one tensor, or on the several that flow side by side."""
    if isinstance(module, nn.Identity):  # which takes one tensor alone
        return x
    return module(*x) if isinstance(x, tuple) else module(x)


class Model(nn.Module):
    """Stem, stages and head: (B, C, H, W) of the spec's input size → what the head puts out."""

    def __init__(
        self,
        stem: nn.Module,
        stages: list[nn.Module],
        head: nn.Module,
        input_size: tuple[int, int, int],
        taps: tuple[int, ...] = (),
    ):
        super().__init__()
        self.taps = taps  # stages whose outputs the head takes; empty for the last alone
        self.input_size = input_size  # (C, H, W) that the bias tables are made for
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        if not self.taps:
            for stage in self.stages:
                x = stage(x)
            return _call(self.head, x)
        tapped = {tap % len(self.stages) for tap in self.taps}
        outputs = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in tapped:
                outputs[i] = x[0] if isinstance(x, tuple) else x
        return self.head(*(outputs[tap % len(self.stages)] for tap in self.taps))


def build(spec: Spec) -> Model:
    """The network of `spec`, in train mode, freshly initialised on torch's default device."""
    placed = {place.path: place for place in flow(spec)}

    def made(path: str) -> nn.Module:
        return build_block(placed[path].block, placed[path].in_shape)

    stages: list[nn.Module] = []
    for i, stage in enumerate(spec.stages):
        downsample = made(f"stages.{i}.downsample") if stage.downsample is not None else None
        stages.append(Stage(downsample, [made(f"stages.{i}.blocks.{j}") for j in range(len(stage.blocks))]))
    model = Model(made("stem"), stages, made("head"), spec.input, spec.head.taps)
    _set_drop_path(model, spec.drop_path_rate)
    _initialise(model)
    return model


def _set_drop_path(model: Model, rate: float) -> None:
    """Block k of T drops its residual branches with probability rate·k/(T−1) (EfficientFormerV2 reference schedule)."""
    blocks = [block for stage in model.stages.children() for block in stage.blocks.children()]  # type: ignore[union-attr]
    for k, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(module, DropPath):
                module.drop_prob = rate * k / max(1, len(blocks) - 1)


def _initialise(model: nn.Module) -> None:
    """Linear layers: truncated normal of deviation 0.02, zero bias (the references' scheme); the rest as torch does."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.is_meta:
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def fuse(model: nn.Module) -> nn.Module:
    """A copy of `model` in deploy form: norms and layer scales folded, distillation heads merged; outputs unchanged.

    Any module may take part by a method `fuse()` that changes it in place; children are fused before their parents.
    The copy is in eval mode: BatchNorm folded away cannot be trained.
    """
    fused = copy.deepcopy(model).eval()
    fuse_in_place(fused)
    return fused


def fuse_in_place(module: nn.Module) -> None:
    """As `fuse`, without the copy: `module` itself is changed. On the meta device no arithmetic is done."""
    for child in module.children():
        fuse_in_place(child)
    if callable(own := getattr(module, "fuse", None)):
        own()
