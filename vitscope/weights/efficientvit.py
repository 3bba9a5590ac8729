"""How timm and the authors name the weights of EfficientViT (MIT), of its segmentation networks and SAM encoders."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

# What timm and the authors call the layers inside a block, and ours
_LAYERS = (
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
)

TIMM = Naming(
    "timm EfficientViT",
    marks=(r"^stem\.in_conv\.conv\.", r"\.context_module\.main\.qkv\."),
    rules=(
        Rule(r"^stages\.4\.", r"stages.5."),
        Rule(r"^stages\.3\.", r"stages.4."),
        Rule(r"^stages\.2\.", r"stages.3."),
        Rule(r"^stages\.1\.", r"stages.2."),
        Rule(r"^stages\.0\.", r"stages.1."),
        Rule(r"^stem\.res(\d+)\.", r"stages.0.blocks.\1."),
        *_LAYERS,
    ),
)

# The heads of the authors: a list of layers for classes; inputs, middle and outputs of a graph for dense prediction
_HEADS = (
    Rule(r"^head\.op_list\.0\.", r"head.in_conv."),
    Rule(r"^head\.op_list\.2\.linear\.", r"head.classifier.0."),
    Rule(r"^head\.op_list\.2\.norm\.", r"head.classifier.1."),
    Rule(r"^head\.op_list\.3\.linear\.", r"head.classifier.4."),
    Rule(r"^neck\.", r"head."),
    Rule(r"^norm\.", r"head.norm."),
    Rule(r"^head\.input_ops\.(\d)\.(op_list\.0\.)?", r"head.inputs.\1."),
    Rule(r"^head\.middle\.op_list\.", r"head.blocks."),
    Rule(r"^head\.output_ops\.0\.op_list\.0\.", r"head.expand.", beside=r"head.output_ops.0.op_list.1.conv.weight"),
    Rule(r"^head\.output_ops\.0\.op_list\.\d\.conv\.", r"head.head."),
)

AUTHORS_B = Naming(
    "the authors' EfficientViT-B",
    marks=(r"^backbone\.input_stem\.op_list\.",),
    rules=(
        Rule(r"^backbone\.input_stem\.op_list\.0\.", r"stem.in_conv."),
        Rule(r"^backbone\.input_stem\.op_list\.1\.", r"stem.res0."),
        Rule(r"^backbone\.stages\.(\d+)\.op_list\.", r"stages.\1.blocks."),
        *_HEADS,
    ),
    then=TIMM,
)

_SAM = (r"^prompt_encoder\.", r"^mask_decoder\.")  # SAM's own, beside its image encoder

# Where the authors count the blocks at the stem's resolution as their first stage, ours are one behind.
_STAGES_AFTER_STEM = tuple(Rule(rf"^backbone\.stages\.{n}\.op_list\.", rf"stages.{n - 1}.blocks.") for n in range(1, 6))

AUTHORS_L = Naming(
    "the authors' EfficientViT-L",
    marks=(r"^(image_encoder\.)?backbone\.stages\.0\.op_list\.1\.",),
    rules=(
        Rule(r"^image_encoder\.", r""),
        Rule(r"^backbone\.stages\.0\.op_list\.0\.", r"stem.in_conv."),
        Rule(r"^backbone\.stages\.0\.op_list\.1\.", r"stem.res0."),
        Rule(r"^backbone\.stages\.0\.op_list\.2\.", r"stem.res1."),
        *_STAGES_AFTER_STEM,
        *_HEADS,
    ),
    drop=_SAM,
    then=TIMM,
)

# Without residual blocks behind the stem, our stages are numbered from what the authors call the second.
AUTHORS_XL0 = Naming(
    "the authors' EfficientViT-SAM-XL0",
    marks=(r"^(image_encoder\.)?backbone\.stages\.0\.op_list\.0\.conv\.",),
    rules=(
        Rule(r"^image_encoder\.", r""),
        Rule(r"^backbone\.stages\.0\.op_list\.0\.", r"stem.in_conv."),
        *_STAGES_AFTER_STEM,
        *_HEADS,
        *_LAYERS,
    ),
    drop=_SAM,
)

NAMINGS = (TIMM, AUTHORS_B, AUTHORS_L, AUTHORS_XL0)
