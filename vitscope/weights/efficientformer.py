"""How timm and the authors (snap-research) name the weights of EfficientFormer V1 and V2."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

# Index tables that some versions keep beside the attention biases: they follow from the shape of the grid.
INDEX_TABLES = (r"\.attention_bias_idxs$",)

TIMM_V2 = Naming(
    "timm EfficientFormerV2",
    marks=(r"^stem\.conv1\.bn\.", r"\.mlp\.mid\.bn\."),
    rules=(
        Rule(r"^(stages\.[12]\.downsample)\.conv\.", r"\1."),
        Rule(r"\.bn\.", r".norm."),
        Rule(r"\.attention_biases$", r".bias.table"),
        Rule(r"\.attn\.q\.local\.", r".attn.q_local."),
        Rule(r"\.attn\.q\.proj\.", r".attn.q."),
        Rule(r"^(norm|head|head_dist)\.", r"head.\1."),
    ),
    drop=INDEX_TABLES,
)

TIMM_V1 = Naming(
    "timm EfficientFormer",
    marks=(r"^stem\.norm1\.", r"\.token_mixer\.qkv\."),
    rules=(
        Rule(r"^stem\.conv(\d)\.", r"stem.conv\1.conv."),
        Rule(r"^stem\.norm(\d)\.", r"stem.conv\1.norm."),
        # MB4D has norms in its MLP, MB3D has none: only the first has convolutions.
        Rule(r"^(.*\.mlp)\.fc(\d)\.", r"\1.fc\2.conv.", beside=r"\1.norm\2.weight"),
        Rule(r"\.mlp\.norm(\d)\.", r".mlp.fc\1.norm."),
        Rule(r"\.attention_biases$", r".bias.table"),
        Rule(r"^(norm|head|head_dist)\.", r"head.\1."),
    ),
    drop=INDEX_TABLES,
    skips_blocks=True,  # a module that flattens the map stands before the first MB3D
)

_SNAP_STAGES = (
    Rule(r"^network\.0\.(\d+)\.", r"stages.0.blocks.\1."),
    Rule(r"^network\.2\.(\d+)\.", r"stages.1.blocks.\1."),
    Rule(r"^network\.4\.(\d+)\.", r"stages.2.blocks.\1."),
    Rule(r"^network\.6\.(\d+)\.", r"stages.3.blocks.\1."),
    Rule(r"^network\.1\.", r"stages.1.downsample."),
    Rule(r"^network\.3\.", r"stages.2.downsample."),
    Rule(r"^network\.5\.", r"stages.3.downsample."),
    Rule(r"\.layer_scale_(\d)$", r".ls\1.gamma"),
    Rule(r"^dist_head\.", r"head_dist."),
)

SNAP_V2 = Naming(
    "authors' EfficientFormerV2",
    marks=(r"^patch_embed\.0\.", r"\.mlp\.mid_norm\."),
    rules=(
        Rule(r"^patch_embed\.0\.", r"stem.conv1.conv."),
        Rule(r"^patch_embed\.1\.", r"stem.conv1.bn."),
        Rule(r"^patch_embed\.3\.", r"stem.conv2.conv."),
        Rule(r"^patch_embed\.4\.", r"stem.conv2.bn."),
        *_SNAP_STAGES,
        Rule(r"\.downsample\.(proj|conv)\.", r".downsample.conv.conv."),
        Rule(r"\.downsample\.(norm|bn)\.", r".downsample.conv.bn."),
        Rule(r"\.(q|k|v|v_local|stride_conv|q\.proj)\.0\.", r".\1.conv."),
        Rule(r"\.(q|k|v|v_local|stride_conv|q\.proj)\.1\.", r".\1.bn."),
        Rule(r"\.q\.local\.0\.", r".q.local."),
        Rule(r"\.proj\.1\.", r".proj.conv."),  # behind the activation, which is number 0
        Rule(r"\.proj\.2\.", r".proj.bn."),
        Rule(r"\.mlp\.(fc1|mid|fc2)\.", r".mlp.\1.conv."),
        Rule(r"\.mlp\.norm1\.", r".mlp.fc1.bn."),
        Rule(r"\.mlp\.mid_norm\.", r".mlp.mid.bn."),
        Rule(r"\.mlp\.norm2\.", r".mlp.fc2.bn."),
    ),
    drop=INDEX_TABLES,
    then=TIMM_V2,
)

SNAP_V1 = Naming(
    "authors' EfficientFormer",
    marks=(r"^patch_embed\.0\.", r"\.token_mixer\.qkv\."),
    rules=(
        Rule(r"^patch_embed\.0\.", r"stem.conv1."),
        Rule(r"^patch_embed\.1\.", r"stem.norm1."),
        Rule(r"^patch_embed\.3\.", r"stem.conv2."),
        Rule(r"^patch_embed\.4\.", r"stem.norm2."),
        *_SNAP_STAGES,
        Rule(r"\.downsample\.proj\.", r".downsample.conv."),
    ),
    drop=INDEX_TABLES,
    then=TIMM_V1,
)

NAMINGS = (TIMM_V2, TIMM_V1, SNAP_V2, SNAP_V1)
