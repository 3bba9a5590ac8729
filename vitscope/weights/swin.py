"""How timm names the weights of Swin Transformer."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

# What follows from the sides of grid and window, and older versions keep beside the weights
COMPUTED = (r"\.relative_position_index$", r"\.attn_mask$")

TIMM_SWIN = Naming(
    "timm Swin",
    marks=(r"^patch_embed\.proj\.", r"^layers\.0\.blocks\.0\.attn\.relative_position_bias_table$", r"^head\.fc\."),
    rules=(
        Rule(r"^patch_embed\.", r"stem."),
        Rule(r"^layers\.", r"stages."),
        Rule(r"\.relative_position_bias_table$", r".relative_bias.table"),
        Rule(r"^norm\.", r"head.norm."),
        Rule(r"^head\.fc\.", r"head.head."),
    ),
    drop=COMPUTED,
)

# The authors count the merging of patches to the stage that it ends, and have no layer between pooling and head.
AUTHORS_SWIN = Naming(
    "authors' Swin",
    marks=(r"^patch_embed\.proj\.", r"^layers\.0\.downsample\.", r"\.relative_position_bias_table$", r"^head\.weight$"),
    rules=(
        *(Rule(rf"^layers\.{i}\.downsample\.", rf"layers.{i + 1}.downsample.") for i in (2, 1, 0)),
        Rule(r"^head\.(weight|bias)$", r"head.fc.\1"),
    ),
    drop=COMPUTED,
    then=TIMM_SWIN,
)

NAMINGS = (TIMM_SWIN, AUTHORS_SWIN)
