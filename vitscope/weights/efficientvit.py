"""How timm and the authors name the weights of EfficientViT (MIT)."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM = Naming(
    "timm EfficientViT",
    marks=(r"^stem\.in_conv\.conv\.", r"\.context_module\.main\.qkv\."),
    rules=(
        Rule(r"^stages\.3\.", r"stages.4."),
        Rule(r"^stages\.2\.", r"stages.3."),
        Rule(r"^stages\.1\.", r"stages.2."),
        Rule(r"^stages\.0\.", r"stages.1."),
        Rule(r"^stem\.res(\d+)\.", r"stages.0.blocks.\1."),
        Rule(r"\.context_module\.main\.", r".attn."),
        Rule(r"\.local_module\.main\.", r".local."),
        Rule(r"\.main\.", r"."),
        Rule(r"\.qkv\.conv\.", r".qkv."),
        Rule(r"\.aggreg\.0\.", r".gather."),
        Rule(r"\.(inverted_conv|spatial_conv|conv1)\.", r".expand."),
        Rule(r"\.depth_conv\.", r".depthwise."),
        Rule(r"\.(point_conv|conv2)\.", r".project."),
        Rule(r"^stem\.in_conv\.", r"stem.conv1."),
        Rule(r"^head\.in_conv\.", r"head.conv."),
        Rule(r"^head\.classifier\.0\.", r"head.hidden."),
        Rule(r"^head\.classifier\.1\.", r"head.norm."),
        Rule(r"^head\.classifier\.4\.", r"head.head."),
    ),
)

_AUTHORS_HEAD = (
    Rule(r"^head\.op_list\.0\.", r"head.in_conv."),
    Rule(r"^head\.op_list\.2\.linear\.", r"head.classifier.0."),
    Rule(r"^head\.op_list\.2\.norm\.", r"head.classifier.1."),
    Rule(r"^head\.op_list\.3\.linear\.", r"head.classifier.4."),
)


def _stem(prefix: str) -> tuple[Rule, ...]:
    """The authors' list of the stem's layers: the convolution, then its residual blocks, which timm counts from 0."""
    return (
        Rule(prefix + r"\.op_list\.0\.", r"stem.in_conv."),
        Rule(prefix + r"\.op_list\.1\.", r"stem.res0."),
        Rule(prefix + r"\.op_list\.2\.", r"stem.res1."),
    )


AUTHORS_B = Naming(
    "the authors' EfficientViT-B",
    marks=(r"^backbone\.input_stem\.op_list\.", r"^head\.op_list\."),
    rules=(
        *_stem(r"^backbone\.input_stem"),
        Rule(r"^backbone\.stages\.(\d+)\.op_list\.", r"stages.\1.blocks."),
        *_AUTHORS_HEAD,
    ),
    then=TIMM,
)

AUTHORS_L = Naming(
    "the authors' EfficientViT-L",
    marks=(r"^backbone\.stages\.0\.op_list\.0\.conv\.", r"^head\.op_list\."),
    rules=(
        *_stem(r"^backbone\.stages\.0"),
        Rule(r"^backbone\.stages\.1\.op_list\.", r"stages.0.blocks."),
        Rule(r"^backbone\.stages\.2\.op_list\.", r"stages.1.blocks."),
        Rule(r"^backbone\.stages\.3\.op_list\.", r"stages.2.blocks."),
        Rule(r"^backbone\.stages\.4\.op_list\.", r"stages.3.blocks."),
        *_AUTHORS_HEAD,
    ),
    then=TIMM,
)

NAMINGS = (TIMM, AUTHORS_B, AUTHORS_L)
