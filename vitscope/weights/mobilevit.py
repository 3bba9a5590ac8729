"""How timm names the weights of MobileViT and MobileViTv2."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

_SHARED = (
    Rule(r"^stem\.conv\.", r"stem.conv1.conv."),
    Rule(r"^stem\.bn\.", r"stem.conv1.norm."),
    Rule(r"^final_conv\.", r"head.conv."),
    Rule(r"^head\.fc\.", r"head.head."),
    Rule(r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    Rule(r"\.conv1_1x1\.", r".expand."),
    Rule(r"\.conv2_kxk\.", r".depthwise."),
    Rule(r"\.conv3_1x1\.", r".project."),
    Rule(r"\.conv_kxk\.", r".local."),
    Rule(r"\.conv_1x1\.", r".embed."),
    Rule(r"\.conv_proj\.", r".proj."),
    Rule(r"\.conv_fusion\.", r".fusion."),
    Rule(r"\.transformer\.", r".layers."),
    Rule(r"\.bn\.", r".norm."),
)

TIMM_V1 = Naming(
    "timm MobileViT", marks=(r"^stages\.\d\.\d\.conv_fusion\.", r"\.transformer\.\d\.attn\.qkv\."), rules=_SHARED
)

TIMM_V2 = Naming(
    "timm MobileViTv2",
    marks=(r"^stages\.\d\.\d\.conv_kxk\.", r"\.transformer\.\d\.attn\.qkv_proj\."),
    rules=(
        *_SHARED,
        Rule(r"\.attn\.qkv_proj\.", r".attn.qkv."),
        Rule(r"\.attn\.out_proj\.", r".attn.proj."),
        Rule(r"\.mlp\.(fc\d)\.", r".\1."),
    ),
)

NAMINGS = (TIMM_V1, TIMM_V2)
