"""How timm and torchvision name the weights of ResNet: alike."""

from __future__ import annotations

from vitscope.weights.naming import Naming, Rule

TIMM_RESNET = Naming(
    "timm ResNet",
    marks=(r"^conv1\.weight$", r"^layer1\.0\.conv3\.", r"^fc\."),
    rules=(
        Rule(r"^conv1\.", r"stem.conv.conv."),
        Rule(r"^bn1\.", r"stem.conv.norm."),
        Rule(r"^fc\.", r"head.head."),
        Rule(r"^layer1\.", r"stages.0.blocks."),
        Rule(r"^layer2\.", r"stages.1.blocks."),
        Rule(r"^layer3\.", r"stages.2.blocks."),
        Rule(r"^layer4\.", r"stages.3.blocks."),
        Rule(r"\.conv1\.", r".reduce.conv."),
        Rule(r"\.bn1\.", r".reduce.norm."),
        Rule(r"\.conv2\.", r".conv.conv."),
        Rule(r"\.bn2\.", r".conv.norm."),
        Rule(r"\.conv3\.", r".expand.conv."),
        Rule(r"\.bn3\.", r".expand.norm."),
        Rule(r"\.downsample\.0\.", r".shortcut.conv."),
        Rule(r"\.downsample\.1\.", r".shortcut.norm."),
    ),
)

NAMINGS = (TIMM_RESNET,)
