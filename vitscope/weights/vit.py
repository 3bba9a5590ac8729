"""How timm and DeiT's authors name the weights of plain vision transformers."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM_VIT = Naming(
    "timm ViT",
    marks=(r"^patch_embed\.proj\.", r"^cls_token$", r"^pos_embed$", r"^blocks\.\d+\.attn\.qkv\."),
    rules=(
        Rule(r"^patch_embed\.", r"stem."),
        Rule(r"^(cls_token|dist_token|pos_embed)$", r"stem.\1"),
        Rule(r"^blocks\.(\d+)\.", r"stages.0.blocks.\1."),
        Rule(r"^(norm|head|head_dist)\.", r"head.\1."),
    ),
)

NAMINGS = (TIMM_VIT,)
