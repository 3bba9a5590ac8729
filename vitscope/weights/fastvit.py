"""How timm names the weights of FastViT."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM = Naming(
    "timm FastViT",
    marks=(r"^stem\.2\.conv_kxk\.", r"^final_conv\.conv_kxk\.", r"\.token_mixer\.mixer\."),
    rules=(
        Rule(r"^stem\.0\.", r"stem.conv."),
        Rule(r"^stem\.1\.", r"stem.block2.depthwise."),
        Rule(r"^stem\.2\.", r"stem.block2.pointwise."),
        Rule(r"^final_conv\.", r"head.conv."),
        Rule(r"^head\.fc\.", r"head.head."),
        Rule(r"\.pos_emb\.pos_enc\.", r".downsample.position.conv."),
        Rule(r"\.proj\.0\.large_conv\.", r".spatial.branches.0."),
        Rule(r"\.proj\.0\.small_conv\.", r".spatial.small."),
        Rule(r"\.downsample\.proj\.1\.", r".downsample.pointwise."),
        Rule(r"\.token_mixer\.(qkv|proj)\.", r".attn.\1."),
        Rule(r"\.token_mixer\.norm\.identity\.", r".token_mixer.norm."),
        Rule(r"\.token_mixer\.layer_scale\.", r".token_mixer.ls."),
        Rule(r"\.layer_scale_(\d)\.", r".ls\1."),
        Rule(r"\.layer_scale\.", r".ls2."),
        Rule(r"\.mlp\.conv\.", r".mlp.depthwise."),
        Rule(r"\.conv_kxk\.", r".branches."),
        Rule(r"\.conv_scale\.", r".small."),
        Rule(r"\.se\.fc1\.", r".se.reduce."),
        Rule(r"\.se\.fc2\.", r".se.expand."),
        Rule(r"\.bn\.", r".norm."),
    ),
)

NAMINGS = (TIMM,)
