"""ConvNeXt (arXiv 2201.03545): patchify stem, downsampling, and the block of one depthwise convolution and an MLP."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.layers import NORMS, DropPath, fold_layer_scale, layer_scale
from vitscope.blocks.tokens import Mlp
from vitscope.spec.kinds import convnext as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class PatchStem(nn.Module):
    """Patches to positions, then a norm (Section 2.2): (B, C, H, W) → (B, width, H/patch, W/patch)."""

    def __init__(self, spec: grammar.PatchStem, x: FeatureShape):
        super().__init__()
        self.conv = nn.Conv2d(x.channels, spec.width, spec.side, spec.patch, padding=spec.padding)
        self.norm = NORMS[spec.norm](spec.width, spec.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class NormConv(nn.Module):
    """Norm, then patches to positions (Section 2.6): (B, C, H, W) → (B, width, H/stride, W/stride)."""

    def __init__(self, spec: grammar.NormConv, x: FeatureShape):
        super().__init__()
        self.norm = NORMS[spec.norm](x.channels, spec.norm_eps)
        self.conv = nn.Conv2d(x.channels, spec.width, spec.stride, spec.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class ConvNextBlock(nn.Module):
    """Depthwise convolution, LayerNorm, MLP with channels last (Section 2.6), residual: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.ConvNextBlock, x: FeatureShape):
        super().__init__()
        dim = x.channels
        self.depthwise = nn.Conv2d(dim, dim, spec.kernel, padding=spec.kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=spec.norm_eps)
        self.mlp = Mlp(dim, int(dim * spec.expansion), spec.act)
        self.ls = layer_scale(dim, spec.layer_scale_init, channel_dim=-1)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        y_BHWC = self.depthwise(x).permute(0, 2, 3, 1)
        y_BHWC = self.ls(self.mlp(self.norm(y_BHWC)))
        return x + self.drop_path(y_BHWC.permute(0, 3, 1, 2))

    def fuse(self) -> None:
        """Fold the layer scale into the last linear layer."""
        self.ls = fold_layer_scale(self.ls, self.mlp.fc2)


BLOCKS = {
    grammar.PatchStem: PatchStem,
    grammar.NormConv: NormConv,
    grammar.ConvNextBlock: ConvNextBlock,
}
