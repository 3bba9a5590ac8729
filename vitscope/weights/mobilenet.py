"""How timm names the weights of MobileNets and EfficientNets."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM_MOBILENET = Naming(
    "timm MobileNet",
    marks=(r"^conv_stem\.", r"^blocks\.\d+\.\d+\.conv_dw\."),
    rules=(
        Rule(r"^conv_stem\.", r"stem.conv1.conv."),
        Rule(r"^bn1\.", r"stem.conv1.norm."),
        # A head with a bias has no norm and works on the pooled vector (V3): what stands before pooling is a last stage.
        Rule(r"^conv_head\.", r"head.hidden.conv.", beside=r"conv_head.bias"),
        Rule(r"^conv_head\.", r"head.conv.conv."),
        Rule(r"^bn2\.", r"head.conv.norm."),
        Rule(r"^(blocks\.\d+\.\d+)\.bn1\.", r"head.conv.norm.", beside=r"\1.conv.weight"),
        Rule(r"^blocks\.\d+\.\d+\.conv\.", r"head.conv.conv."),
        Rule(r"^classifier\.", r"head.head."),
        # The first unit does not expand: what it calls conv_pw and bn1, bn2 are the others' conv_pwl and bn2, bn3.
        Rule(r"^(blocks\.\d+\.\d+)\.conv_pw\.", r"\1.expand.conv.", beside=r"\1.conv_pwl.weight"),
        Rule(r"^(blocks\.\d+\.\d+)\.bn1\.", r"\1.expand.norm.", beside=r"\1.conv_pwl.weight"),
        Rule(r"^(blocks\.\d+\.\d+)\.bn2\.", r"\1.depthwise.norm.", beside=r"\1.conv_pwl.weight"),
        Rule(r"^(blocks\.\d+\.\d+)\.conv_pw\.", r"\1.project.conv."),
        Rule(r"^(blocks\.\d+\.\d+)\.bn1\.", r"\1.depthwise.norm."),
        Rule(r"^(blocks\.\d+\.\d+)\.bn2\.", r"\1.project.norm."),
        Rule(r"\.se\.conv_(reduce|expand)\.", r".se.\1."),
        Rule(r"\.conv_dw\.", r".depthwise.conv."),
        Rule(r"\.conv_pwl\.", r".project.conv."),
        Rule(r"\.bn3\.", r".project.norm."),
        Rule(r"^blocks\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    ),
)

TIMM_MOBILENETV4 = Naming(
    "timm MobileNetV4",
    marks=(r"^conv_stem\.", r"\.pw_exp\.", r"^norm_head\."),
    rules=(
        Rule(r"^conv_stem\.", r"stem.conv1.conv."),
        Rule(r"^bn1\.", r"stem.conv1.norm."),
        Rule(r"^conv_head\.", r"head.hidden.conv."),
        Rule(r"^norm_head\.", r"head.hidden.norm."),
        Rule(r"^classifier\.", r"head.head."),
        # The last stage is the convolution before pooling, which belongs to our head.
        Rule(r"^blocks\.4\.0\.bn1\.", r"head.conv.norm."),
        Rule(r"^blocks\.4\.0\.conv\.", r"head.conv.conv."),
        # Fused inverted residual: one block, or a stage of two convolutions
        Rule(r"^(blocks\.\d+)\.0\.bn1\.", r"\1.0.expand.norm.", beside=r"\1.0.conv.weight"),
        Rule(r"^(blocks\.\d+)\.1\.bn1\.", r"\1.0.project.norm.", beside=r"\1.1.conv.weight"),
        Rule(r"^(blocks\.\d+)\.0\.conv\.", r"\1.0.expand.conv."),
        Rule(r"^(blocks\.\d+)\.1\.conv\.", r"\1.0.project.conv."),
        Rule(r"^(blocks\.\d+\.\d+)\.bn1\.", r"\1.expand.norm.", beside=r"\1.conv_exp.weight"),
        Rule(r"\.conv_exp\.", r".expand.conv."),
        Rule(r"\.conv_pwl\.", r".project.conv."),
        Rule(r"\.bn2\.", r".project.norm."),
        # Universal inverted bottleneck
        Rule(r"\.bn\.", r".norm."),
        Rule(r"\.dw_start\.", r".start."),
        Rule(r"\.pw_exp\.", r".expand."),
        Rule(r"\.dw_mid\.", r".depthwise."),
        Rule(r"\.pw_proj\.", r".project."),
        Rule(r"^blocks\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    ),
)

NAMINGS = (TIMM_MOBILENET, TIMM_MOBILENETV4)
