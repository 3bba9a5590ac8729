"""Which rows of published.csv each device is fitted on: protocols, harnesses, copies of other people's rows, precision."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.published_networks import AI_HUB, KERAS_CV, NETWORKS


@dataclass(frozen=True, slots=True)
class Harness:
    """One laboratory's way to measure: its rows share an offset. `order`: the smaller wins among copies of one figure."""

    name: str
    order: int = 0
    per_phone: bool = False  # the source lists several phones of the series, each with an offset of its own


@dataclass(frozen=True, slots=True)
class Anchor:
    """One measurement that stands in a document and not in published.csv, by its name there."""

    model: str
    side: int
    latency_ms: float
    source: str


@dataclass(frozen=True)
class Published:
    """The rows of one device: what must stand in their columns, how names are read, and what is dropped for which reason.

    `harnesses` maps the beginning of `source` to the laboratory. `part` says in which form the networks were measured
    where nothing else does. `dropped` holds (harness, lineage) → reason.
    """

    devices: tuple[str, ...]
    described: str
    harnesses: dict[str, Harness]
    runtime: str = ""  # beginning of the column
    precision: str | None = None
    batch: int = 1
    names: dict[str, tuple[str, str]] = field(default_factory=lambda: NETWORKS)
    timm_names: bool = False  # `variant` says timm's name
    part: str = "whole"
    dense_side: int = 0  # rows of this size are backbones of detectors, without a classifier
    dropped: dict[tuple[str, str], str] = field(default_factory=dict)
    transfer_from: str = ""  # too few rows for coefficients of its own: those of this device are scaled
    anchors: tuple[Anchor, ...] = ()  # rows that published.csv does not have


# The beginning of `source` → harness. Sources of one laboratory and protocol share a name; among rows of one network and
# one harness the one with the smallest order is kept, because the others are the same measurement, rounded or digitised.
_IPHONE12: dict[str, Harness] = {
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

_COREMLTOOLS = "coremltools docs-guides, "
_QUOTED = "equals EfficientFormerV2's figure to the last digit, so quoted"
_TIMM = {"timm results/": Harness("timm-benchmark")}
_MIT = {"EfficientViT paper": Harness("efficientvit", 1), "EfficientViT repo": Harness("efficientvit", 0)}
_AI_HUB = {"Qualcomm AI Hub": Harness("ai-hub")}

PUBLISHED: dict[str, Published] = {
    "iphone12": Published(
        devices=("iPhone 12", "iPhone 12 Pro", "iPhone 12 Pro Max"),  # one chip, one memory: the A14 with LPDDR4X
        described="published latencies of networks that the Neural Engine runs whole, iPhone 12, 12 Pro and 12 Pro Max",
        harnesses=_IPHONE12,
        dense_side=512,
        dropped={
            **{("repvit-xcode14-ios16", lineage): _QUOTED for lineage in ("EfficientFormer", "PoolFormer", "EfficientNet")},
            ("snap-coreml-performance-ios15", "PoolFormer"): "iOS 15 leaves the engine (6.1 against 1.5 ms under iOS 16)",
            ("nextvit-xcode14-12promax", "PoolFormer"): "equals the iOS 15 figures, so quoted or not resident",
        },
    ),
    "iphone13": Published(
        devices=("iPhone 13",),
        described="published latencies of networks that the Neural Engine runs whole, iPhone 13",
        harnesses={
            "iFormer paper (ICLR 2025) Table 3": Harness("iformer-coremltools", 0),
            "iFormer paper (ICLR 2025) Table 4": Harness("iformer-coremltools", 1),
            "iFormer paper (ICLR 2025) Table 12": Harness("iformer-coremltools", 1),
            "iFormer paper (ICLR 2025) Table 18": Harness("iformer-coremltools", 2),
            "iFormer paper (ICLR 2025) Table 5": Harness("iformer-coremltools", 0),
            "iFormer paper (ICLR 2025) Table 13": Harness("iformer-coremltools", 1),
            "MobileNetV4 paper (ECCV 2024) Table 6": Harness("mobilenetv4-xcode15-ios16.6.1"),
            "EfficientMod paper (ICLR 2024) Table 12": Harness("efficientmod-modelbench-ios16.6.1"),
            "StarNet paper (CVPR 2024) suppl. Table": Harness("starnet-modelbench"),
        },
        dense_side=512,
    ),
    "iphone14": Published(
        devices=("iPhone 14",),
        described="published latencies of networks that the Neural Engine runs whole, iPhone 14",
        transfer_from="iphone13",
        harnesses={
            "StarNet paper (CVPR 2024) suppl. Table 19": Harness("starnet-modelbench"),
        },
    ),
    "iphone14pro": Published(
        devices=("iPhone 14 Pro", "iPhone 14"),  # SwiftFormer's authors: their iPhone 14 is a 14 Pro Max, so an A16
        described="Apple's published latencies on an iPhone 14 Pro under iOS 17, MLCommons', and SwiftFormer's (14 Pro Max)",
        harnesses={
            "mlcommons/mobile_app_open issue 865": Harness("mlcommons-ios17.5.1"),
            "SwiftFormer paper (ICCV 2023) Table 2": Harness("swiftformer-xcode14-ios16"),
        },
        transfer_from="iphone13",
        anchors=(
            Anchor("MobileNetV2 1.0x", 224, 0.48, f"{_COREMLTOOLS}opt-quantization-perf.md"),
            Anchor("ResNet50", 224, 1.52, f"{_COREMLTOOLS}opt-quantization-perf.md"),
            Anchor("MobileViTv2-1.0", 256, 1.38, f"{_COREMLTOOLS}opt-quantization-perf.md"),
            Anchor("MobileNetV3-Small", 224, 0.13, f"{_COREMLTOOLS}opt-quantization-perf.md"),
        ),
    ),
    "iphone15pro": Published(
        devices=("iPhone 15 Pro",),
        described="Apple's published latencies on an iPhone 15 Pro under iOS 17",
        harnesses={},
        transfer_from="iphone14pro",
        anchors=(
            Anchor("MobileNetV2 1.0x", 224, 0.49, f"{_COREMLTOOLS}opt-quantization-perf.md"),
            Anchor("ResNet50", 224, 1.38, f"{_COREMLTOOLS}opt-quantization-perf.md"),
            Anchor("MobileViTv2-1.0", 256, 1.36, f"{_COREMLTOOLS}opt-quantization-perf.md"),
        ),
    ),
    "galaxy_s24": Published(
        devices=("Samsung Galaxy S24",), runtime="tflite", precision="float", harnesses=_AI_HUB, names={**NETWORKS, **AI_HUB},
        described="Qualcomm AI Hub's table, Galaxy S24, TensorFlow Lite on the NPU, floating point",
    ),
    "galaxy_s25": Published(
        devices=("Samsung Galaxy S25",), runtime="tflite", precision="float", harnesses=_AI_HUB, names={**NETWORKS, **AI_HUB},
        described="Qualcomm AI Hub's table, Galaxy S25, TensorFlow Lite on the NPU, floating point",
    ),
    "sd8gen1_cpu": Published(
        devices=("Qualcomm Snapdragon 8 Gen 1 CPU",), harnesses=_MIT,
        described="EfficientViT's README of April 2023, Snapdragon 8 Gen 1 CPU, TensorFlow Lite fp32",
    ),
    "jetson_nano": Published(
        devices=("NVIDIA Jetson Nano",), runtime="TensorRT (data transfer included)", harnesses=_MIT,
        described="EfficientViT's paper and README, Jetson Nano, TensorRT fp16, transfer of the image included",
    ),
    "jetson_agx_orin": Published(
        devices=("NVIDIA Jetson AGX Orin",), runtime="TensorRT (data transfer included)", harnesses=_MIT,
        described="EfficientViT's paper and README, Jetson AGX Orin, TensorRT fp16, transfer of the image included",
        dropped={},
    ),
    "a100": Published(
        devices=("NVIDIA A100",), runtime="PyTorch", batch=256, harnesses={"SHViT paper": Harness("shvit")},
        described="SHViT's Tables 2 and 3, A100, PyTorch, batch 256",
    ),
    "t4": Published(
        devices=("NVIDIA T4",), runtime="TensorRT (trtexec", names=KERAS_CV,
        harnesses={"keras_cv_attention_models README": Harness("keras-cv")},
        described="keras_cv_attention_models' README, T4, TensorRT fp16 as CUDA graph (trtexec)",
    ),
    "rtx3090": Published(
        devices=("NVIDIA RTX 3090",), runtime="PyTorch 2.4 amp", batch=1024, harnesses=_TIMM, timm_names=True, part="train",
        described="timm's results, RTX 3090, PyTorch 2.4 amp fp16 channels-last, batch 1024",
    ),
    "rtx4090": Published(
        devices=("NVIDIA RTX 4090",), runtime="PyTorch 2.4 amp", batch=512, harnesses=_TIMM, timm_names=True, part="train",
        described="timm's results, RTX 4090, PyTorch 2.4 amp fp16 channels-last, batch 512",
    ),
    "i9_10940x": Published(
        devices=("Intel i9-10940X CPU",), harnesses=_TIMM, timm_names=True, part="train",
        described="timm's results, i9-10940X, torch.compile of PyTorch 2.4, fp32, batch 1",
    ),
    "i7_12700h": Published(
        devices=("Intel i7-12700H CPU",), harnesses=_TIMM, timm_names=True, part="train",
        described="timm's results, i7-12700H, torch.compile of PyTorch 2.4, fp32, batch 1",
    ),
}  # fmt: skip
