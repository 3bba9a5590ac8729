"""Grammar of ConvNeXt (arXiv 2201.03545): its patchify stem, downsampling and block, which later families took over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    Kernel,
    LayerScale,
    NormEps,
    Role,
    Stride,
    Width,
    need_map,
    same_map,
)
from vitscope.spec.shape import FeatureShape

CONVNEXT = "ConvNeXt, arXiv 2201.03545"

LayerNormField = Annotated[Literal["ln", "none"], Field(description="ln: LayerNorm over channels; none")]


def patches(kind: str, x: FeatureShape, width: int, patch: int) -> FeatureShape:
    """A map cut into patches without overlap, one position each; what is left over at the far borders is dropped."""
    need_map(kind, x)
    if x.height < patch or x.width < patch:
        raise ShapeError(f"{kind} takes patches of {patch}×{patch}, but a {x.height}×{x.width} map arrives")
    return FeatureShape(width, x.height // patch, x.width // patch)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchStem(BlockSpec):
    """Patches, each projected to one position of a map, then a norm; they overlap where the kernel is larger."""

    kind: ClassVar[str] = "patch_stem"
    role: ClassVar[Role] = "stem"
    source: ClassVar[str] = f"{CONVNEXT}, Section 2.2"
    width: Width
    patch: Annotated[int, Field(strict=True, ge=1, le=256, description="side of a patch, in pixels")] = 4
    kernel: Annotated[
        int | None, Field(strict=True, ge=1, le=256, description="side of the kernel; null for that of the patch")
    ] = None
    padding: Annotated[int, Field(strict=True, ge=0, le=128, description="pixels of zeros around the image")] = 0
    norm: LayerNormField = "ln"
    norm_eps: NormEps = 1e-6

    def __post_init__(self) -> None:
        if self.side <= self.padding:
            raise ValueError(f"padding {self.padding} would make positions of nothing but zeros: kernel is {self.side}")

    @property
    def side(self) -> int:
        """Side of the kernel."""
        return self.patch if self.kernel is None else self.kernel

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        if (self.side, self.padding) == (self.patch, 0):
            return patches(self.kind, x, self.width, self.patch)
        need_map(self.kind, x)
        height, width = (side + 2 * self.padding - self.side for side in (x.height, x.width))
        if min(height, width) < 0:
            raise ShapeError(
                f"{self.kind} has a kernel of {self.side}×{self.side} and padding {self.padding}, "
                f"but a {x.height}×{x.width} map arrives"
            )
        return FeatureShape(self.width, height // self.patch + 1, width // self.patch + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormConv(BlockSpec):
    """A norm, then a convolution whose kernel is its stride: patches of the map are merged without overlap."""

    kind: ClassVar[str] = "norm_conv"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{CONVNEXT}, Section 2.6"
    width: Width
    stride: Stride = 2
    norm: LayerNormField = "ln"
    norm_eps: NormEps = 1e-6

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return patches(self.kind, x, self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNextBlock(BlockSpec):
    """Depthwise k×k, LayerNorm, two linear layers at every position; one residual with layer scale around all of it."""

    kind: ClassVar[str] = "convnext_block"
    source: ClassVar[str] = f"{CONVNEXT}, Section 2.6"
    kernel: Kernel = 7
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-6
    layer_scale_init: LayerScale = 1e-6

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


KINDS: tuple[type[BlockSpec], ...] = (PatchStem, NormConv, ConvNextBlock)
