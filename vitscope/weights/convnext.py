"""How timm and the authors (facebookresearch) name the weights of ConvNeXt."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM_CONVNEXT = Naming(
    "timm ConvNeXt",
    marks=(r"^stem\.0\.", r"\.conv_dw\.", r"^stages\.0\.blocks\.0\.gamma$", r"^head\.fc\."),
    rules=(
        Rule(r"^stem\.0\.", r"stem.conv."),
        Rule(r"^stem\.1\.", r"stem.norm."),
        Rule(r"\.downsample\.0\.", r".downsample.norm."),
        Rule(r"\.downsample\.1\.", r".downsample.conv."),
        Rule(r"\.conv_dw\.", r".depthwise."),
        Rule(r"\.gamma$", r".ls.gamma"),
        Rule(r"^head\.fc\.", r"head.head."),
    ),
)

AUTHORS_CONVNEXT = Naming(
    "authors' ConvNeXt",
    marks=(r"^downsample_layers\.0\.0\.", r"^stages\.0\.0\.dwconv\.", r"^stages\.0\.0\.pwconv1\."),
    rules=(
        Rule(r"^downsample_layers\.0\.", r"stem."),
        Rule(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
        Rule(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
        Rule(r"\.dwconv\.", r".conv_dw."),
        Rule(r"\.pwconv(\d)\.", r".mlp.fc\1."),
        Rule(r"^norm\.", r"head.norm."),
        Rule(r"^head\.(weight|bias)$", r"head.fc.\1"),
    ),
    then=TIMM_CONVNEXT,
)

NAMINGS = (TIMM_CONVNEXT, AUTHORS_CONVNEXT)
