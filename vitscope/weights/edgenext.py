"""How timm and the authors (mmaaz60) name the weights of EdgeNeXt; outside its SDTA blocks, as those of ConvNeXt."""

from __future__ import annotations

from vitscope.weights.convnext import AUTHORS_CONVNEXT, TIMM_CONVNEXT
from vitscope.weights.naming import Naming, Rule

TIMM_EDGENEXT = Naming(
    "timm EdgeNeXt",
    marks=(r"^stem\.0\.", r"\.xca\.temperature$"),
    rules=(
        *TIMM_CONVNEXT.rules,
        Rule(r"^(.*)\.norm\.", r"\1.norm2.", beside=r"\1.xca.temperature"),
        Rule(r"^(.*)\.ls\.gamma$", r"\1.ls2.gamma", beside=r"\1.xca.temperature"),
        Rule(r"\.gamma_xca$", r".ls1.gamma"),
        Rule(r"\.norm_xca\.", r".norm1."),
        Rule(r"\.convs\.(\d)\.", r".splits.convs.\1."),
        Rule(r"\.pos_embd\.token_projection\.", r".positions.proj."),
        Rule(r"\.xca\.(qkv|proj)\.", r".attn.\1."),
        Rule(r"\.xca\.temperature$", r".attn.temperature"),
    ),
)

AUTHORS_EDGENEXT = Naming(
    "authors' EdgeNeXt",
    marks=(r"^downsample_layers\.0\.0\.", r"\.xca\.temperature$"),
    rules=AUTHORS_CONVNEXT.rules,
    then=TIMM_EDGENEXT,
)

NAMINGS = (TIMM_EDGENEXT, AUTHORS_EDGENEXT)
