"""How timm and the authors (apple/ml-mobileone) name the weights of MobileOne."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

_MOST_BLOCKS = 16  # of a stage: the largest stage of S0–S4 has 10

TIMM = Naming(
    "timm MobileOne",
    marks=(r"^stem\.conv_kxk\.", r"^stages\.\d\.\d+\.conv_kxk\."),
    rules=(
        Rule(r"^stem\.", r"stem.conv."),
        Rule(r"^head\.fc\.", r"head.head."),
        # Depthwise and pointwise convolutions take turns, and each has a number of its own.
        *(
            Rule(rf"^stages\.(\d)\.{2 * i + j}\.", rf"stages.\1.blocks.{i}.{half}.")
            for i in range(_MOST_BLOCKS)
            for j, half in enumerate(("depthwise", "pointwise"))
        ),
        Rule(r"\.conv_kxk\.", r".branches."),
        Rule(r"\.conv_scale\.", r".small."),
        Rule(r"\.attn\.fc1\.", r".se.reduce."),
        Rule(r"\.attn\.fc2\.", r".se.expand."),
        Rule(r"\.bn\.", r".norm."),
    ),
)

APPLE = Naming(
    "authors' MobileOne",
    marks=(r"^stage0\.rbr_conv\.", r"^stage4\.0\.rbr_conv\."),
    rules=(
        Rule(r"^stage0\.", r"stem."),
        *(Rule(rf"^stage{i + 1}\.", rf"stages.{i}.") for i in range(4)),
        Rule(r"^linear\.", r"head.fc."),
        Rule(r"\.rbr_conv\.", r".conv_kxk."),
        Rule(r"\.rbr_scale\.", r".conv_scale."),
        Rule(r"\.rbr_skip\.", r".identity."),
        Rule(r"\.se\.reduce\.", r".attn.fc1."),
        Rule(r"\.se\.expand\.", r".attn.fc2."),
    ),
    then=TIMM,
)

NAMINGS = (TIMM, APPLE)
