"""How timm and the authors (apple/ml-cvnets) name the weights of MobileViT and MobileViTv2."""

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

# A layer's norm, convolutions, dropouts: only those with weights have keys, under their number.
_CVNETS = (
    Rule(r"^conv_1\.block\.", r"stem.conv1."),
    *(Rule(rf"^layer_{i + 1}\.(\d)\.", rf"stages.{i}.blocks.\1.") for i in range(5)),
    Rule(r"\.block\.exp_1x1\.block\.", r".expand."),
    Rule(r"\.block\.conv_3x3\.block\.", r".depthwise."),
    Rule(r"\.block\.red_1x1\.block\.", r".project."),
    Rule(r"\.local_rep\.(conv_3x3|0)\.block\.", r".local."),
    Rule(r"\.local_rep\.(conv_1x1|1)\.block\.conv\.", r".embed."),
    Rule(r"\.global_rep\.\d\.(weight|bias)$", r".norm.\1"),  # behind the last layer
    Rule(r"\.global_rep\.", r".layers."),
    Rule(r"\.pre_norm_(mha|attn)\.0\.", r".norm1."),
    Rule(r"\.pre_norm_(mha|attn)\.1\.qkv_proj\.", r".attn.qkv."),
    Rule(r"\.pre_norm_(mha|attn)\.1\.out_proj\.", r".attn.proj."),
    Rule(r"\.pre_norm_ffn\.0\.", r".norm2."),
    Rule(r"\.conv_proj\.block\.", r".proj."),
    Rule(r"\.fusion\.block\.", r".fusion."),
    Rule(r"^conv_1x1_exp\.block\.", r"head.conv."),
    Rule(r"^classifier\.(fc|1)\.", r"head.head."),
)

CVNETS_V1 = Naming(
    "authors' MobileViT",
    marks=(r"^conv_1\.block\.", r"\.pre_norm_mha\."),
    rules=(
        *_CVNETS,
        Rule(r"\.pre_norm_ffn\.1\.", r".mlp.fc1."),
        Rule(r"\.pre_norm_ffn\.4\.", r".mlp.fc2."),
    ),
)

CVNETS_V2 = Naming(
    "authors' MobileViTv2",
    marks=(r"^conv_1\.block\.", r"\.pre_norm_attn\."),
    rules=(
        *_CVNETS,
        Rule(r"\.attn\.(qkv|proj)\.block\.conv\.", r".attn.\1."),
        Rule(r"\.pre_norm_ffn\.1\.block\.conv\.", r".fc1."),
        Rule(r"\.pre_norm_ffn\.3\.block\.conv\.", r".fc2."),
    ),
)

NAMINGS = (TIMM_V1, TIMM_V2, CVNETS_V1, CVNETS_V2)
