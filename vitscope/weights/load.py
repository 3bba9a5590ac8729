"""load_weights: fill a network of ours from a checkpoint, every weight exactly once, or say what does not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vitscope.weights.names import naming_of
from vitscope.weights.naming import Naming, our_names
from vitscope.weights.read import WeightsError, read_state

_SHOWN = 4  # of each kind of finding; the rest are a number
_GRIDS = (".pos_embed", ".relative_bias.table")  # a row a position of the grid, or a distance within it
_COUNTER = ".num_batches_tracked"  # bookkeeping that older versions do not write


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was loaded: whose naming the file is in, how many tensors and learnable scalars, and which keys were dropped."""

    source: str
    naming: str
    num_tensors: int
    params: int
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        aside = f", {len(self.dropped)} keys carry nothing learned" if self.dropped else ""
        return f"{self.source}: fits: {self.num_tensors} tensors, {self.params:,} params, named as {self.naming}{aside}"


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Fill `model` from a .pth, .pt or .safetensors file in timm's naming, the authors' or our own.

    Every parameter and norm statistic of `model` must be in the file once, in its shape, and everything in the file must
    have a place or be on the naming's drop list. Raises WeightsError, and leaves `model` as it was, otherwise.
    """
    return load_state(model, read_state(Path(path)), str(path))


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str = "weights") -> LoadReport:
    """As `load_weights`, for tensors that are already here."""
    ours = dict(model.state_dict())
    naming = naming_of(state)
    if naming is None and not ours.keys() & state.keys():
        raise WeightsError(
            f"{source}: its names, as {next(iter(state), '')!r}, are neither ours nor of a family whose weights can be read"
        )
    names = our_names(naming, state) if naming is not None else {key: key for key in state}
    if not ours.keys() & set(names.values()):
        assert naming is not None
        raise WeightsError(f"{source}: holds a network of {naming.name}, and nothing in it has a place in this network")
    _check(ours, state, names, naming, source, getattr(model, "input_size", None))
    filled = {name: state[key].reshape(ours[name].shape) for key, name in names.items()}
    model.load_state_dict({**ours, **filled})
    return LoadReport(
        source=source,
        naming=naming.name if naming is not None else "vitscope",
        num_tensors=len(filled),
        params=sum(p.numel() for p in model.parameters()),
        dropped=tuple(key for key in state if key not in names),
    )


def _check(
    ours: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    naming: Naming | None,
    source: str,
    input_size: tuple[int, int, int] | None,
) -> None:
    """Raise WeightsError with what is missing, left over, given twice or of another shape, and the likely reason."""
    given: dict[str, list[str]] = {}
    for key, name in names.items():
        given.setdefault(name, []).append(key)
    twice = [f"{name}: given twice, by {' and '.join(keys)}" for name, keys in given.items() if len(keys) > 1]
    missing = [name for name in ours if name not in given and not name.endswith(_COUNTER)]
    surplus = [keys[0] for name, keys in given.items() if name not in ours]
    other = {
        name: (tuple(state[keys[0]].shape), tuple(ours[name].shape))
        for name, keys in given.items()
        if name in ours and not _fits(name, state[keys[0]], ours[name])
    }
    if not (twice or missing or surplus or other):
        return
    fit = sum(name in ours and name not in other for name in given)
    whose = naming.name if naming is not None else "our own"
    lines = [
        f"{source}: does not fit this network: {fit} of its {len(ours)} tensors fit (the file's names are {whose})"
    ]
    lines += _some(twice)
    lines += _some([f"{name}: {_shape(file)} in the file, {_shape(here)} here" for name, (file, here) in other.items()])
    lines += _some([f"{name}: not in the file" for name in missing])
    lines += _some([f"{key}: in the file, but without a place here" for key in surplus])
    lines += [f"  → {line}" for line in _reasons(ours, given, missing, other, input_size)]
    raise WeightsError("\n".join(lines))


def _fits(name: str, file: Tensor, here: Tensor) -> bool:
    """Equal shapes; the authors keep a layer scale of C channels as (C, 1, 1)."""
    if name.endswith(".gamma"):
        return file.numel() == here.numel() == file.shape[0]
    return file.shape == here.shape


def _some(findings: list[str]) -> list[str]:
    more = len(findings) - _SHOWN
    return [f"  {line}" for line in findings[:_SHOWN]] + ([f"  … and {more} more like this"] if more > 0 else [])


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _reasons(
    ours: Mapping[str, Tensor],
    given: Mapping[str, list[str]],
    missing: list[str],
    other: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    input_size: tuple[int, int, int] | None,
) -> list[str]:
    """What the mismatches have in common, as one would tell it to a person, and the setting that would cure it."""
    depths = {"the file": _depths(given), "this network": _depths(ours)}
    if len(set(depths.values())) > 1:
        return [", ".join(f"{who} has depths {depth or 'none'}" for who, depth in depths.items()) + ": another network"]
    reasons = []
    tables = [shapes for name, shapes in other.items() if name.endswith(".bias.table")]
    if tables:
        reasons.append(_resolution(*tables[0], input_size))
    grids = [name for name in other if name.endswith(_GRIDS)]
    if grids:
        size = f", this network is for {input_size[1]}×{input_size[2]}" if input_size is not None else ""
        reasons.append(f"{grids[0]} has its size from that of the image: another resolution{size}")
    heads = [shapes for name, shapes in other.items() if re.match(r"head\.head(_dist)?\.weight$", name)]
    if heads and heads[0][0][1:] == heads[0][1][1:]:
        file, here = heads[0][0][0], heads[0][1][0]
        reasons.append(f"the file is for {file} classes, this network for {here}: head.classes={file} would fit")
    if any(name.startswith("head.head_dist.") for name in missing):
        reasons.append("the file has one head, this network two: head.block=classifier would fit")
    if "head.head_dist.weight" in given and "head.head_dist.weight" not in ours and "head.head.weight" in ours:
        reasons.append("the file has a second head for distillation: head.block=distilled_classifier would fit")
    if any(".norm." in name for name in missing) and not any(".norm." in name for name in given):
        reasons.append("the file has no norms: it looks fused (deploy form), this network is not")
    widths = [
        name for name in other if not name.endswith((".bias.table", *_GRIDS)) and not name.startswith("head.head")
    ]
    if widths:
        reasons.append("widths or expansions differ: another network of the family, or a variant of this one")
    return reasons


_BLOCK = re.compile(r"^stages\.(\d+)\.blocks\.(\d+)\.")


def _depths(names: Mapping[str, object]) -> str:
    """Blocks a stage, as `2,2,6,4`."""
    depths: dict[int, int] = {}
    for name in names:
        if found := _BLOCK.match(name):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
    return ",".join(str(depths[stage]) for stage in sorted(depths))


def _resolution(file: tuple[int, ...], here: tuple[int, ...], input_size: tuple[int, int, int] | None) -> str:
    """Bias tables have one column a position of the token grid, so that they fit one resolution alone."""
    reason = f"attention bias tables of {file[-1]} positions in the file, {here[-1]} here: another resolution"
    if input_size is None or file[0] != here[0]:
        return reason
    _, height, width = input_size
    reduction = next((r for r in (4, 8, 16, 32, 64) if -(-height // r) * -(-width // r) == here[-1]), None)
    if reduction is None:
        return reason
    rows = next(r for r in range(math.isqrt(file[-1]), 0, -1) if file[-1] % r == 0)
    return (
        f"{reason}; {rows * reduction}×{file[-1] // rows * reduction} would fit, this network is for {height}×{width}"
    )
