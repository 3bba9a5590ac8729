"""How timm names the weights of RepViT."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM = Naming(
    "timm RepViT",
    marks=(r"^stem\.conv1\.c\.", r"\.token_mixer\.conv1\.", r"\.channel_mixer\.conv1\.c\."),
    rules=(
        Rule(r"^head\.(head|head_dist)\.l\.", r"head.\1."),
        Rule(r"^head\.head\.bn\.", r"head.norm."),
        Rule(r"^head\.head_dist\.bn\.", r"head.norm_dist."),
        Rule(r"\.pre_block\.", r".block."),
        Rule(r"\.spatial_downsample\.", r".depthwise."),
        Rule(r"\.channel_downsample\.", r".pointwise."),
        Rule(r"\.(channel_mixer|ffn)\.conv1\.", r".channel_mixer.expand."),
        Rule(r"\.(channel_mixer|ffn)\.conv2\.", r".channel_mixer.project."),
        Rule(r"\.token_mixer\.conv1\.", r".token_mixer.small.conv."),
        Rule(r"\.token_mixer\.conv\.", r".token_mixer.branches.0."),
        Rule(r"\.se\.fc1\.", r".token_mixer.se.reduce."),
        Rule(r"\.se\.fc2\.", r".token_mixer.se.expand."),
        Rule(r"\.c\.", r".conv."),
        Rule(r"\.bn\.", r".norm."),
    ),
)

NAMINGS = (TIMM,)
