"""BlockSpec: the base of every block kind, and the field types that they share.

A kind is one frozen dataclass. It is at once the grammar of its YAML text, the key under which its cost is remembered,
and the constructor argument of its module. It knows neither its input channels nor a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from vitscope.errors import ShapeError
from vitscope.spec.shape import Feature, FeatureShape

Role = Literal["stem", "downsample", "block", "head"]
Act = Literal["relu", "relu6", "gelu", "gelu_tanh", "silu", "hardswish", "none"]
Norm = Literal["bn", "gn", "ln", "none"]


def _odd(side: int) -> int:
    """An even kernel would need a padding that is not symmetric."""
    if side % 2 == 0:
        raise ValueError(f"must be odd, got {side}")
    return side


MAX_PAIRS = 1 << 26  # of query and key positions, each with an index into the table of attention biases

Width = Annotated[int, Field(strict=True, ge=1, le=65536, description="output channels")]
Classes = Annotated[int, Field(strict=True, ge=1, le=10_000_000, description="classes of the last linear layer")]
Expansion = Annotated[float, Field(strict=True, gt=0, le=64, description="hidden / input channels")]
Kernel = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=63,
        description="side of the depthwise or spatial kernel, odd",
        json_schema_extra={"not": {"multipleOf": 2}},
    ),
    AfterValidator(_odd),
]
Stride = Annotated[int, Field(strict=True, ge=1, le=16, description="spatial stride")]
NumHeads = Annotated[int, Field(strict=True, ge=1, le=256, description="attention heads")]
HeadDim = Annotated[int, Field(strict=True, ge=1, le=1024, description="channels of query and key per head")]
ValueRatio = Annotated[float, Field(strict=True, gt=0, le=64, description="value channels / key channels, per head")]
ActField = Annotated[Act, Field(description="activation")]
NormField = Annotated[
    Norm, Field(description="bn: BatchNorm; gn: GroupNorm of one group; ln: LayerNorm over channels; none")
]
NormEps = Annotated[float, Field(strict=True, gt=0, lt=1, description="epsilon of the norm")]
SeRatio = Annotated[
    float | None,
    Field(strict=True, gt=0, le=1, description="squeezed / gated channels of squeeze-excite; null for no gate"),
]
LayerScale = Annotated[
    float | None,
    Field(strict=True, ge=0, le=10, description="initial per-channel gain of a residual branch; null for no gain"),
]
Dropout = Annotated[float, Field(strict=True, ge=0, lt=1, description="probability of dropping a channel in training")]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """A block kind with its fields filled in. Subclasses set `kind` and `role` and implement `out_shape`."""

    kind: ClassVar[str]
    role: ClassVar[Role] = "block"
    source: ClassVar[str] = ""
    streams: ClassVar[int] = 1  # features that it takes side by side; more than one come as a tuple
    takes_prefix: ClassVar[bool] = False  # whether tokens in front of the grid's may arrive
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    def taps(self) -> tuple[int, ...]:
        """Of a head: the stages whose outputs it takes, in its order, -1 the last; empty for the last output alone."""
        return ()

    def out_shape(self, x: Any) -> Feature:
        """The feature after this block: FeatureShape → FeatureShape, or tuples of them where several flow.

        Raises ShapeError, with both sides of what does not fit.
        """
        raise ShapeError(f"block {self.kind} does not say what it puts out: its class needs out_shape")


def need_map(kind: str, x: FeatureShape) -> None:
    """Refuse tokens where a block needs a map."""
    if x.tokens:
        raise ShapeError(f"{kind} needs a feature map, but the block before it puts out tokens")


def same_map(kind: str, x: FeatureShape, expansion: float) -> FeatureShape:
    """The map that arrives, which leaves as it came; inside, its channels are expanded."""
    need_map(kind, x)
    hidden_channels(x.channels, expansion)
    return x


def need_heads(num_heads: int, channels: int) -> None:
    """Refuse heads that the channels cannot be shared out among."""
    if channels % num_heads:
        raise ShapeError(f"{num_heads} heads do not divide {channels} channels")


def need_head_dim(head_dim: int, channels: int) -> None:
    """Refuse heads whose channels do not add up to all of them."""
    if channels % head_dim:
        raise ShapeError(f"heads of head_dim {head_dim} do not divide {channels} channels")


def need_pairs(queries: int, keys: int) -> None:
    """Refuse attention whose table of offsets alone would take half a gigabyte."""
    if queries * keys > MAX_PAIRS:
        raise ShapeError(
            f"attention of {queries:,} to {keys:,} positions makes {queries * keys:,} pairs, more than {MAX_PAIRS:,}: "
            "use it at a lower resolution, or stride_attention"
        )


def hidden_channels(in_channels: int, expansion: float) -> int:
    """Channels inside an expansion: int(in · expansion), at least one (EfficientFormerV2 reference rounding)."""
    hidden = int(in_channels * expansion)
    if hidden < 1:
        raise ShapeError(f"expansion {expansion:g} of {in_channels} channels leaves no hidden channel")
    return hidden


def squeezed_channels(channels: int, se_ratio: float | None) -> int | None:
    """Channels inside a squeeze-excite: int(channels · se_ratio), at least one; None without one."""
    if se_ratio is None:
        return None
    squeezed = int(channels * se_ratio)
    if squeezed < 1:
        raise ShapeError(f"se_ratio {se_ratio:g} of {channels} channels leaves no squeezed channel")
    return squeezed
