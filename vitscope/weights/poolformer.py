"""How timm names the weights of PoolFormer."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM_POOLFORMER = Naming(
    "timm PoolFormer",
    marks=(r"^stem\.conv\.", r"\.layer_scale1\.scale$", r"^head\.fc\."),
    rules=(
        Rule(r"\.layer_scale(\d)\.scale$", r".ls\1.gamma"),
        Rule(r"\.mlp\.fc(\d)\.", r".fc\1.conv."),
        Rule(r"^head\.fc\.", r"head.head."),
    ),
)

NAMINGS = (TIMM_POOLFORMER,)
