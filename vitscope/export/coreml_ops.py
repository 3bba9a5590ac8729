"""Operations of torch that coremltools 9.0 does not convert, or not rightly, each lowered to Core ML's with equal values."""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Teach coremltools the lowerings below: GELU's in place of its own, the others where it has none. May be called
    again."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY, register_torch_op

    for name, lowering in (("alias", alias), ("upsample_bicubic2d.vec", upsample_bicubic2d)):
        if name not in _TORCH_OPS_REGISTRY.name_to_func_mapping:
            register_torch_op(lowering, torch_alias=[name] if name != lowering.__name__ else None)
    register_torch_op(gelu, override=True)


def alias(context: Any, node: Any) -> None:
    """A second name of the same tensor."""
    context.add(context[node.inputs[0]], torch_name=node.name)


def gelu(context: Any, node: Any) -> None:
    """GELU in the form that the program asks for. coremltools' own lowering overlooks `approximate` where it is a keyword,
    as torch.export writes it, and takes the exact form, from which the tanh form differs by up to 5e-4."""
    from coremltools.converters.mil import Builder

    build: Any = Builder
    given = node.inputs[1] if len(node.inputs) > 1 else ((node.kwinputs or {}).get("approximate") or ["none"])[0]
    form = context[given].val if given not in ("none", "tanh") else given
    mode = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[form]
    context.add(build.gelu(x=context[node.inputs[0]], mode=mode, name=node.name))


def upsample_bicubic2d(context: Any, node: Any) -> None:
    """Bicubic resize of (B, C, H, W): linear in each axis, so a product with one constant matrix from each side.

    Core ML resizes bilinearly and by nearest neighbour only. The matrices are what torch makes of unit vectors.
    """
    from coremltools.converters.mil import Builder

    build: Any = Builder  # its operations are attributes made when coremltools is imported
    image = context[node.inputs[0]]
    size, corners, factors = (_value(context, given) for given in (*node.inputs[1:], None, None)[:3])
    height, width = (int(n) for n in image.shape[-2:])
    sizes = (None, None) if size is None else tuple(int(n) for n in size)
    scales = (None, None) if factors is None else tuple(float(n) for n in factors)
    down = _matrix(height, sizes[0], scales[0], bool(corners))
    across = _matrix(width, sizes[1], scales[1], bool(corners))
    tall = build.matmul(x=down, y=image)
    context.add(build.matmul(x=tall, y=across.T.copy(), name=node.name))


def _value(context: Any, given: Any) -> Any:
    """A constant argument as Python or numpy holds it; coremltools gives it as it is or by the name of a variable."""
    if isinstance(given, (list, tuple)):
        return [_value(context, one) for one in given]
    return context[given].val if isinstance(given, str) else given


def _matrix(before: int, after: int | None, scale: float | None, corners: bool) -> Any:
    """The (after, before) matrix of one axis, in float32."""
    import torch

    units = torch.eye(before).reshape(before, 1, before, 1)
    size = None if after is None else [after, 1]
    factors = None if scale is None else [scale, 1.0]
    out = torch.ops.aten.upsample_bicubic2d.vec(units, size, corners, factors if size is None else None)
    return out.reshape(before, -1).T.contiguous().numpy()
