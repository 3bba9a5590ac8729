"""How timm names the weights of LeViT."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM_LEVIT = Naming(
    "timm LeViT",
    marks=(r"^stem\.conv1\.linear\.", r"\.attn\.qkv\.linear\.", r"^head_dist\.bn\."),
    rules=(
        Rule(r"^stem\.conv(\d)\.linear\.", r"stem.conv\1.conv."),
        Rule(r"^head\.bn\.", r"head.norm."),
        Rule(r"^head\.linear\.", r"head.head."),
        Rule(r"^head_dist\.bn\.", r"head.norm_dist."),
        Rule(r"^head_dist\.linear\.", r"head.head_dist."),
        Rule(r"\.bn\.", r".norm."),
        Rule(r"\.attn_downsample\.", r".attn."),
        Rule(r"\.(q|proj)\.ln\.", r".\1."),
        Rule(r"\.mlp\.ln(\d)\.", r".mlp.fc\1."),
        Rule(r"\.attention_biases$", r".bias.table"),
    ),
    drop=(r"\.attention_bias_idxs$",),
)

NAMINGS = (TIMM_LEVIT,)
