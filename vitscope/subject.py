"""A network with values, ready to run: what is exported and measured. From a spec, a name of another source, or a module."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from vitscope.errors import UsageError, VitscopeError
from vitscope.model import build, fuse
from vitscope.sources import Source, source_of
from vitscope.sources.build import Built
from vitscope.sources.build import build as build_source
from vitscope.sources.module import fuse_own_way
from vitscope.sources.tree import blocks
from vitscope.spec import Spec, load_spec
from vitscope.spec.flow import flow

Form = Literal["train", "deploy"]
Size = tuple[int, int, int]

_SEED = 0
# Images that statistics are taken of: a norm after pooling sees one value an image, and the variance of two is now and
# then nearly zero. Large images are fewer; their maps have values enough.
_IMAGES, _PIXELS = 8, 8 * 256 * 256
# The least variance of a channel, as a share of its norm's mean variance, and its least deviation, as a share of the
# channel's own mean: images of noise look much alike, and a gain made of what tells them apart makes chaos of rounding.
_LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A module in eval mode on the CPU, with the input it takes and the paths of the blocks that its time is told by.

    `digest` identifies the architecture: two subjects of one digest, form and input do the same work. `weights` says
    where the values came from.
    """

    name: str
    digest: str
    form: Form
    module: nn.Module
    input_shape: tuple[int, int, int, int]  # (B, C, H, W)
    blocks: tuple[str, ...]
    weights: str
    reported_top1: float | None = None

    def example(self, seed: int = 1) -> torch.Tensor:
        """One batch of standard normal noise, the same for the same seed."""
        return torch.randn(self.input_shape, generator=torch.Generator().manual_seed(seed))


def load_subject(
    model: str,
    *,
    form: Form = "deploy",
    overrides: Sequence[str] = (),
    resolution: tuple[int, int] | None = None,
    batch: int = 1,
    weights: str | None = None,
    input_size: Size | None = None,
    kwargs: Mapping[str, Any] | None = None,
    allow_plugins: bool = False,
) -> Subject:
    """The Subject that `model` names, as it is named in `profile`; a file of ONNX is exported already and is refused.

    Without `weights` (a checkpoint) the values are random from a fixed seed, made to resemble trained ones (`spread_constants`,
    `take_statistics`): the number of operations does not depend on values, but denormals, fp16 overflows, ranges of
    quantisation, and whether a comparison with PyTorch can see a mistake do.

    Raises SpecError, UsageError or WeightsError.
    """
    source = source_of(model)
    if source is not None:
        return _foreign(source, model, form, overrides, resolution, batch, weights, input_size, kwargs)
    if input_size is not None or kwargs:
        raise UsageError(f"{model} is a spec: it takes --set KEY=VALUE and --resolution, not --input or --kwargs")
    spec = load_spec(model, overrides, resolution=resolution, allow_plugins=allow_plugins)
    name = spec.name + "".join(f" {setting}" for setting in overrides)
    return subject_of_spec(spec, name=name, form=form, batch=batch, weights=weights)


def subject_of_spec(
    spec: Spec, *, name: str = "", form: Form = "deploy", batch: int = 1, weights: str | None = None
) -> Subject:
    """The Subject of a Spec, with the values that `load_subject` gives one. Raises WeightsError."""
    torch.manual_seed(_SEED)
    module: nn.Module = build(spec)
    said = f"random, seed {_SEED}"
    if weights is not None:
        from vitscope.weights import load_weights

        load_weights(module, weights)  # type: ignore[arg-type]
        said = weights
    else:
        spread_constants(module)
        take_statistics(module, spec.input)
    return Subject(
        name=name or spec.name,
        digest=spec.digest,
        form=form,
        module=fuse(module) if form == "deploy" else module.eval(),
        input_shape=(batch, *spec.input),
        blocks=tuple(place.path for place in flow(spec)),
        weights=said,
        reported_top1=spec.reported.top1.value if spec.reported and spec.reported.top1 else None,
    )


def _foreign(
    source: Source,
    model: str,
    form: Form,
    overrides: Sequence[str],
    resolution: tuple[int, int] | None,
    batch: int,
    weights: str | None,
    input_size: Size | None,
    kwargs: Mapping[str, Any] | None,
) -> Subject:
    if source.kind == "onnx":
        raise UsageError(f"{model}: is an exported file already; give the spec or module that it came from")
    if overrides:
        raise UsageError(f"--set {overrides[0]}: {model} is no spec; its arguments are given with --kwargs key=value")
    if weights is not None:
        raise UsageError(f"--weights: {model} is no spec, and its own code loads its weights")
    torch.manual_seed(_SEED)
    try:
        built = build_source(source, kwargs or {})
    except VitscopeError:
        raise
    except Exception as error:
        raise UsageError(f"{model}: cannot be built: {type(error).__name__}: {' '.join(str(error).split())}") from error
    size = input_size or built.input
    if resolution is not None:
        size = (size[0], *resolution)
        if resolution != tuple(built.input[1:]) and source.kind == "timm" and "img_size" not in (kwargs or {}):
            built = _sized(source, kwargs or {}, resolution) or built
    text = repr((source.text, sorted((kwargs or {}).items()), size, _package_version(source)))
    random = source.kind != "python" and not (kwargs or {}).get("pretrained")
    try:
        if random:
            spread_constants(built.module)
            take_statistics(built.module, size)
    except Exception as error:
        raise UsageError(_refusal(model, size, error)) from error
    found = subject_of(built.module, size, name=model, form=form, batch=batch)
    found = replace(found, weights=f"random, seed {_SEED}" if random else found.weights)
    return replace(found, digest=hashlib.blake2b(text.encode(), digest_size=8).hexdigest())


def subject_of(module: nn.Module, size: Size, *, name: str = "", form: Form = "deploy", batch: int = 1) -> Subject:
    """The Subject of a module that the caller holds, which stays as it is: its values are kept.

    Its deploy form is what its own fusion makes of it (`fuse`, `reparameterize`, `switch_to_deploy`); BatchNorm that
    is left folds where the runtime folds it. Raises UsageError.
    """
    name = name or type(module).__name__
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UsageError(f"{name}: its weights are on the meta device, so it cannot run")
    module = copy.deepcopy(module)
    parts = tuple(part.path for part in blocks(module))
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros((batch, *size)))
            if form == "deploy":
                module = fuse_own_way(module)
    except Exception as error:
        raise UsageError(_refusal(name, size, error)) from error
    return Subject(
        name=name, digest="", form=form, module=module, input_shape=(batch, *size), blocks=parts,
        weights="as built",
    )  # fmt: skip


def spread_constants(module: nn.Module) -> None:
    """Give every parameter that is one value throughout a spread, as training would, from the global seed.

    A layer scale of 1e-5 makes a block idle: folded into the weights it leaves what half precision cannot hold, and no
    comparison of outputs sees what the block does. Zeros (biases, tables of positions) become normal with deviation
    0.02; gains become uniform from a quarter to three quarters, as training leaves them (with all at 1, queries and keys
    make scores that saturate the softmax, which amplifies rounding block by block); scales that start below a tenth
    become uniform from 0.1 to 0.3.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() < 2 or not parameter.is_floating_point() or parameter.is_meta:
                continue
            value = float(parameter.flatten()[0])
            if bool((parameter == value).all()):
                if value == 0:
                    parameter.normal_(0.0, 0.02)
                elif abs(value) < 0.1:
                    parameter.uniform_(0.1, 0.3)
                else:
                    parameter.uniform_(0.25, 0.75).mul_(value)


def take_statistics(module: nn.Module, size: Size) -> None:
    """Set the running statistics of every BatchNorm of `module` to those of one batch of noise, dropping nothing.

    A channel that hardly varies is given the least variance that `_LEAST` says."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    before = [(norm, norm.momentum) for norm in norms]
    module.eval()
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this batch alone
        norm.train()
    images = max(2, min(_IMAGES, _PIXELS // (size[1] * size[2])))
    try:
        with torch.no_grad():
            module(torch.randn((images, *size), generator=torch.Generator().manual_seed(_SEED)))
        for norm in norms:
            if norm.running_var is not None and norm.running_mean is not None:
                least = torch.maximum(_LEAST * norm.running_var.mean(), (_LEAST * norm.running_mean) ** 2)
                norm.running_var.copy_(torch.maximum(norm.running_var, least))
    finally:
        for norm, momentum in before:
            norm.momentum = momentum
            norm.eval()


def _refusal(name: str, size: Size, error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{name}: its forward pass on {'×'.join(map(str, size))} raised {type(error).__name__}: {said}"


def _sized(source: Source, kwargs: Mapping[str, Any], resolution: tuple[int, int]) -> Built | None:
    """timm's attention networks are made for one size, and take another in their constructor; others refuse the word."""
    try:
        return build_source(source, {**kwargs, "img_size": resolution})
    except Exception:
        return None


def _package_version(source: Source) -> str:
    """The version of the package whose code the network is; empty for the user's own."""
    if source.kind not in ("timm", "torchvision"):
        return ""
    from importlib.metadata import version

    return version(source.kind)
