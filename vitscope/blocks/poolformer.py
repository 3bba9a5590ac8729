"""PoolFormer (arXiv 2111.11418): the MetaFormer block whose token mixer is a pooling."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.efficientformer import PoolMixer
from vitscope.blocks.layers import NORMS, ConvNormAct, DropPath, LayerScale, fold_layer_scale, layer_scale
from vitscope.spec.kinds import poolformer as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class PoolFormerBlock(nn.Module):
    """Pre-norm pooling mixer, then a pre-norm 1×1 MLP, residuals with layer scale (Section 3.2): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.PoolFormer, x: FeatureShape):
        super().__init__()
        dim, hidden = x.channels, int(x.channels * spec.expansion)
        self.norm1 = NORMS[spec.norm](dim, spec.norm_eps)
        self.token_mixer = PoolMixer(spec.kernel)
        self.ls1 = layer_scale(dim, spec.layer_scale_init)
        self.norm2 = NORMS[spec.norm](dim, spec.norm_eps)
        self.fc1 = ConvNormAct(dim, hidden, norm="none", act=spec.act)
        self.fc2 = ConvNormAct(hidden, dim, norm="none")
        self.ls2 = layer_scale(dim, spec.layer_scale_init)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(self.token_mixer(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.fc2(self.fc1(self.norm2(x)))))

    def fuse(self) -> None:
        """Fold the MLP's layer scale into its last convolution, the mixer's into the norm before it.

        Pooling works channel by channel, so a gain commutes with it; the norm's shift it takes away altogether.
        """
        self.ls2 = fold_layer_scale(self.ls2, self.fc2.conv)
        affine = getattr(self.norm1, "weight", None), getattr(self.norm1, "bias", None)
        if isinstance(self.ls1, LayerScale) and isinstance(affine[0], Tensor) and isinstance(affine[1], Tensor):
            if not affine[0].is_meta:
                affine[0].data = affine[0].data * self.ls1.gamma.data
                affine[1].data = affine[1].data * self.ls1.gamma.data
            self.ls1 = nn.Identity()


BLOCKS = {grammar.PoolFormer: PoolFormerBlock}
