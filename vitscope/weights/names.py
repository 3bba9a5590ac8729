"""How others name the weights of the families we build: literal tables from their keys to ours. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Replace what `pattern` finds in a key by `to`; with `beside`, only where that key is in the file as well."""

    pattern: str
    to: str
    beside: str = ""

    def apply(self, key: str, keys: frozenset[str]) -> str:
        found = re.search(self.pattern, key)
        if found is None or (self.beside and found.expand(self.beside) not in keys):
            return key
        return key[: found.start()] + found.expand(self.to) + key[found.end() :]


@dataclass(frozen=True, slots=True)
class Naming:
    """One project's names of one family.

    A file is in this naming when every one of `marks` is found in some key. `drop` are keys that carry nothing learned.
    The rules run in order over every key; what they give is our name, or one of the naming `then`.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    drop: tuple[str, ...] = ()
    then: Naming | None = None
    skips_blocks: bool = False  # numbers of blocks have gaps, where a module without weights stands


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

TIMM_MOBILENETV2 = Naming(
    "timm MobileNetV2",
    marks=(r"^conv_stem\.", r"\.conv_pwl\."),
    rules=(
        Rule(r"^conv_stem\.", r"stem.conv1.conv."),
        Rule(r"^bn1\.", r"stem.conv1.norm."),
        Rule(r"^conv_head\.", r"head.conv.conv."),
        Rule(r"^bn2\.", r"head.conv.norm."),
        Rule(r"^classifier\.", r"head.head."),
        # The first unit does not expand: what it calls conv_pw and bn1, bn2 are the others' conv_pwl and bn2, bn3.
        Rule(r"^(blocks\.\d+\.\d+)\.conv_pw\.", r"\1.expand.conv.", beside=r"\1.conv_pwl.weight"),
        Rule(r"^(blocks\.\d+\.\d+)\.bn1\.", r"\1.expand.norm.", beside=r"\1.conv_pwl.weight"),
        Rule(r"^(blocks\.\d+\.\d+)\.bn2\.", r"\1.depthwise.norm.", beside=r"\1.conv_pwl.weight"),
        Rule(r"^(blocks\.\d+\.\d+)\.conv_pw\.", r"\1.project.conv."),
        Rule(r"^(blocks\.\d+\.\d+)\.bn1\.", r"\1.depthwise.norm."),
        Rule(r"^(blocks\.\d+\.\d+)\.bn2\.", r"\1.project.norm."),
        Rule(r"\.conv_dw\.", r".depthwise.conv."),
        Rule(r"\.conv_pwl\.", r".project.conv."),
        Rule(r"\.bn3\.", r".project.norm."),
        Rule(r"^blocks\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    ),
)

NAMINGS: tuple[Naming, ...] = (TIMM_V2, TIMM_V1, SNAP_V2, SNAP_V1, TIMM_MOBILENETV2)


def naming_of(keys: Iterable[str]) -> Naming | None:
    """The naming that `keys` are in, or None when no table knows them: perhaps they are our own."""
    known = tuple(keys)
    return next((n for n in NAMINGS if all(any(re.search(mark, key) for key in known) for mark in n.marks)), None)


def our_names(naming: Naming, keys: Iterable[str]) -> dict[str, str]:
    """Our name for each of `keys`, except those on the drop list. A key that no rule knows keeps what it has."""
    names = {key: key for key in keys if not any(re.search(pattern, key) for pattern in naming.drop)}
    table: Naming | None = naming
    while table is not None:
        present = frozenset(names.values())
        for rule in table.rules:
            names = {key: rule.apply(name, present) for key, name in names.items()}
            present = frozenset(names.values())
        if table.skips_blocks:
            names = _numbered(names)
        table = table.then
    return names


_BLOCK = re.compile(r"^(stages\.\d+\.blocks)\.(\d+)\.")


def _numbered(names: dict[str, str]) -> dict[str, str]:
    """Number the blocks of each stage without gaps."""
    used: dict[str, set[int]] = {}
    for name in names.values():
        if found := _BLOCK.match(name):
            used.setdefault(found[1], set()).add(int(found[2]))
    place = {stage: {j: n for n, j in enumerate(sorted(numbers))} for stage, numbers in used.items()}
    return {key: _BLOCK.sub(lambda m: f"{m[1]}.{place[m[1]][int(m[2])]}.", name) for key, name in names.items()}
