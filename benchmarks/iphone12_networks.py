"""Which rows of published.csv the iPhone 12 fit uses: names in timm, lineages, harnesses, and what is left out and why."""

from __future__ import annotations

from dataclasses import dataclass

# Published name → (timm name, lineage). A lineage is held out together: reparameterised, rescaled and successor networks of
# one line of design stand or fall together, so EfficientFormer V1 and V2 are one, and MobileCLIP's encoders are FastViT's.
NETWORKS: dict[str, tuple[str, str]] = {
    "EfficientFormer-L1": ("efficientformer_l1", "EfficientFormer"),
    "EfficientFormer-L3": ("efficientformer_l3", "EfficientFormer"),
    "EfficientFormer-L7": ("efficientformer_l7", "EfficientFormer"),
    "EfficientFormerV2-S0": ("efficientformerv2_s0", "EfficientFormer"),
    "EfficientFormerV2-S1": ("efficientformerv2_s1", "EfficientFormer"),
    "EfficientFormerV2-S2": ("efficientformerv2_s2", "EfficientFormer"),
    "EfficientFormerV2-L": ("efficientformerv2_l", "EfficientFormer"),
    "PoolFormer-S12": ("poolformer_s12", "PoolFormer"),
    "PoolFormer-S24": ("poolformer_s24", "PoolFormer"),
    "PoolFormer-S36": ("poolformer_s36", "PoolFormer"),
    "PoolFormer-M36": ("poolformer_m36", "PoolFormer"),
    "PoolFormer-M48": ("poolformer_m48", "PoolFormer"),
    "FastViT-T8": ("fastvit_t8", "FastViT"),
    "FastViT-T12": ("fastvit_t12", "FastViT"),
    "FastViT-S12": ("fastvit_s12", "FastViT"),
    "FastViT-SA12": ("fastvit_sa12", "FastViT"),
    "FastViT-SA24": ("fastvit_sa24", "FastViT"),
    "FastViT-SA36": ("fastvit_sa36", "FastViT"),
    "FastViT-MA36": ("fastvit_ma36", "FastViT"),
    "MobileCLIP-MCi0": ("fastvit_mci0", "FastViT"),
    "MobileCLIP-MCi1": ("fastvit_mci1", "FastViT"),
    "MobileCLIP-MCi2": ("fastvit_mci2", "FastViT"),
    "MobileCLIP2-MCi3": ("fastvit_mci3", "FastViT"),
    "MobileCLIP2-MCi4": ("fastvit_mci4", "FastViT"),
    "MobileOne-S0": ("mobileone_s0", "MobileOne"),
    "MobileOne-S1": ("mobileone_s1", "MobileOne"),
    "MobileOne-S2": ("mobileone_s2", "MobileOne"),
    "MobileOne-S3": ("mobileone_s3", "MobileOne"),
    "MobileOne-S4": ("mobileone_s4", "MobileOne"),
    "RepViT-M0.9": ("repvit_m0_9", "RepViT"),
    "RepViT-M1.0": ("repvit_m1_0", "RepViT"),
    "RepViT-M1.1": ("repvit_m1_1", "RepViT"),
    "RepViT-M1.5": ("repvit_m1_5", "RepViT"),
    "RepViT-M2.3": ("repvit_m2_3", "RepViT"),
    "RepVGG-A0": ("repvgg_a0", "RepVGG"),
    "RepVGG-A1": ("repvgg_a1", "RepVGG"),
    "RepVGG-A2": ("repvgg_a2", "RepVGG"),
    "RepVGG-B0": ("repvgg_b0", "RepVGG"),
    "RepVGG-B1": ("repvgg_b1", "RepVGG"),
    "MobileNetV1 1.0x": ("mobilenetv1_100", "MobileNet"),
    "MobileNetV2 1.0x": ("mobilenetv2_100", "MobileNet"),
    "MobileNetV2 1.4x": ("mobilenetv2_140", "MobileNet"),
    "MobileNetV3-Large 0.75x": ("mobilenetv3_large_075", "MobileNet"),
    "MobileNetV3-Large 1.0x": ("mobilenetv3_large_100", "MobileNet"),
    "MobileNetV3-Small": ("mobilenetv3_small_100", "MobileNet"),
    "MobileNetV3-Small 0.75x": ("mobilenetv3_small_075", "MobileNet"),
    "MNASNet-A1": ("semnasnet_100", "EfficientNet"),
    "MixNet-S": ("mixnet_s", "EfficientNet"),
    "EfficientNet-B0": ("efficientnet_b0", "EfficientNet"),
    "EfficientNet-B1": ("efficientnet_b1", "EfficientNet"),
    "EfficientNet-B2": ("efficientnet_b2", "EfficientNet"),
    "EfficientNet-B3": ("efficientnet_b3", "EfficientNet"),
    "EfficientNet-B4": ("efficientnet_b4", "EfficientNet"),
    "EfficientNet-B5": ("efficientnet_b5", "EfficientNet"),
    "EfficientNetV2-S": ("efficientnetv2_s", "EfficientNet"),
    "ResNet18": ("resnet18", "ResNet"),
    "ResNet50": ("resnet50", "ResNet"),
    "ResNet50 (RSB)": ("resnet50", "ResNet"),
    "ResNet101": ("resnet101", "ResNet"),
    "ResNet101 (RSB)": ("resnet101", "ResNet"),
    "ResNet152": ("resnet152", "ResNet"),
    "ResNet152 (RSB)": ("resnet152", "ResNet"),
    "ResNeXt50 32x4d": ("resnext50_32x4d", "ResNet"),
    "ResNeXt101 32x4d": ("resnext101_32x4d", "ResNet"),
    "RegNetY-8G": ("regnety_080", "RegNet"),
    "RegNetY-16G": ("regnety_160", "RegNet"),
    "NFNet-F0": ("nfnet_f0", "NFNet"),
    "NFNet-F1": ("nfnet_f1", "NFNet"),
    "Next-ViT-S": ("nextvit_small", "Next-ViT"),
    "Next-ViT-B": ("nextvit_base", "Next-ViT"),
    "Next-ViT-L": ("nextvit_large", "Next-ViT"),
    "ConvMixer (80.16% point)": ("convmixer_768_32", "ConvMixer"),
    "ConvMixer (79.45% point)": ("convmixer_1024_20_ks9_p14", "ConvMixer"),
    "EfficientViT-M4 (MSRA)": ("efficientvit_m4", "EfficientViT"),
    "ConvNeXt-T": ("convnext_tiny", "ConvNeXt"),
    "ConvNeXt-S": ("convnext_small", "ConvNeXt"),
    "ConvNeXt-B": ("convnext_base", "ConvNeXt"),
    "DeiT-T": ("deit_tiny_patch16_224", "DeiT"),
    "DeiT-S": ("deit_small_patch16_224", "DeiT"),
    "DeiT-B": ("deit_base_patch16_224", "DeiT"),
    "GhostNet 0.5x": ("ghostnet_050", "GhostNet"),
    "GhostNet 1.0x": ("ghostnet_100", "GhostNet"),
    "GhostNet 1.3x": ("ghostnet_130", "GhostNet"),
    "LeViT-256": ("levit_256", "LeViT"),
    "MobileViT-XXS": ("mobilevit_xxs", "MobileViT"),
    "MobileViT-XS": ("mobilevit_xs", "MobileViT"),
    "MobileViT-S": ("mobilevit_s", "MobileViT"),
    "MobileViTv2-1.0": ("mobilevitv2_100", "MobileViT"),
    "MobileViTv2-2.0": ("mobilevitv2_200", "MobileViT"),
    "PVTv2-B0": ("pvt_v2_b0", "PVT"),
    "PiT-Ti": ("pit_ti_224", "PiT"),
    "ResMLP-S24": ("resmlp_24_224", "ResMLP"),
    "MobileCLIP ViT-B/16": ("vit_base_patch16_224", "DeiT"),
}

# Published names on an iPhone 12 that neither timm nor the zoo builds.
NOT_BUILT: dict[str, str] = {
    "CMT": "no CMT in timm",
    "EdgeViT": "no EdgeViT in timm",
    "MobileViG": "no MobileViG in timm",
    "RepNeXt": "no RepNeXt in timm",
    "MobileNeXt": "no MobileNeXt in timm",
    "ShuffleNetV2": "no ShuffleNetV2 in timm; its channel shuffle leaves the engine in one laboratory and not in another",
    "Mobile-Former": "no Mobile-Former in timm",
    "UniFormer": "no UniFormer in timm",
    "UniNet": "no UniNet in timm",
    "TRT-ViT": "no TRT-ViT in timm",
    "ConViT-tiny": "patch convolution of 16, as DeiT: not needed a third time",
    "PVT-Small": "timm has version 2 only",
    "CLIP ViT-L/14": "as DeiT",
    "RegNetY (": "the point of the figure does not say which RegNetY it is",
    "FastViT-MA36 (": "the point of the figure does not say its resolution",
    "FastViT-SA36 (": "the point of the figure does not say its resolution",
    "SAM": "a segmentation decoder and an encoder at 1024 px",
    "RepViT-SAM": "an encoder at 1024 px",
}

# Resolutions that the table leaves open and the printed accuracy tells.
RESOLUTION = {
    "EfficientNetV2-S": 384, "NFNet-F0": 256, "NFNet-F1": 320, "ResNeXt50 32x4d": 224, "ResNeXt101 32x4d": 224,
    "RegNetY-8G": 224, "RegNetY-16G": 224, "ConvMixer (80.16% point)": 224, "ConvMixer (79.45% point)": 224,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Harness:
    """One laboratory's way to measure: its rows share an offset. `order`: the smaller wins among copies of one figure."""

    name: str
    order: int = 0
    per_phone: bool = False  # the source lists several phones of the series, each with an offset of its own


# The beginning of `source` → harness. Sources of one laboratory and protocol share a name; among rows of one network and
# one harness the one with the smallest order is kept, because the others are the same measurement, rounded or digitised.
HARNESSES: dict[str, Harness] = {
    "EfficientFormer repo README, V2 table": Harness("snap-xcode14-ios16", 0),
    "EfficientFormerV2 paper Fig. 1": Harness("snap-xcode14-ios16", 1),
    "EfficientFormer repo README, V1 table": Harness("snap-coreml-performance-ios15", 0),
    "EfficientFormer V1 paper Fig. 1, later version": Harness("snap-coreml-performance-ios15", 1),
    "EfficientFormer V1 paper Fig. 1 (": Harness("snap-coreml-performance-ios15", 2),
    "RepViT repo screenshot": Harness("repvit-xcode14-ios16", 0),
    "RepViT repo README": Harness("repvit-xcode14-ios16", 1),
    "RepViT paper (CVPR 2024) Table 1": Harness("repvit-xcode14-ios16", 2),
    "RepViT paper (CVPR 2024) Table 2": Harness("repvit-xcode14-ios16", 3),
    "RepViT paper (CVPR 2024) Table 5": Harness("repvit-xcode14-ios16", 4),
    "RepNeXt repo figures": Harness("repnext-xcode14-ios16"),
    "SHViT paper (CVPR 2024) Table": Harness("shvit-coremltools-ios16.5"),
    "MobileOne repo ModelBench screenshot": Harness("mobileone-modelbench-12pro", 1),
    "MobileOne paper (CVPR 2023) Table 9": Harness("mobileone-modelbench-12pro", 0),
    "MobileOne repo README": Harness("mobileone-modelbench-12pro", 2),
    "FastViT repo screenshots": Harness("fastvit-modelbench-12pro", 0),
    "FastViT repo README": Harness("fastvit-modelbench-12pro", 1),
    "FastViT paper Fig. 1": Harness("fastvit-modelbench-12pro", 2),
    "coreml-FastViT-T8 model card": Harness("apple-card-12promax"),
    "MobileCLIP README": Harness("mobileclip-12promax"),
    "StarNet paper (CVPR 2024) suppl. Table 19": Harness("starnet-modelbench", per_phone=True),
    "Next-ViT repo images/coreml_runtime.jpeg": Harness("nextvit-xcode14-12promax", 0),
    "Next-ViT README": Harness("nextvit-xcode14-12promax", 1),
    "Next-ViT repo images/result.png": Harness("nextvit-xcode14-12promax", 2),
    "MobileViT paper (ICLR 2022) Table 3": Harness("mobilevit"),
}

# Figures that RepViT's tables print for other people's networks and that equal EfficientFormerV2's to the last digit.
QUOTED = {("repvit-xcode14-ios16", lineage) for lineage in ("EfficientFormer", "PoolFormer", "EfficientNet")}

# Rows of networks that run whole elsewhere and not there: the same network is 2.6 to 4 times faster under iOS 16.
FELL_BACK = {
    ("snap-coreml-performance-ios15", "PoolFormer"): "iOS 15 leaves the engine for PoolFormer (6.1 against 1.5 ms)",
    ("nextvit-xcode14-12promax", "PoolFormer"): "equals the iOS 15 figures, so quoted or not resident",
}
