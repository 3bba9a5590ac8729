"""Mobile-Former (arXiv 2108.05895): convolutions and a few global tokens side by side, with a bridge in each direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.layers import ConvNormAct, DropPath, add_bias, norm_affine, scale_rows
from vitscope.blocks.tokens import Mlp
from vitscope.spec.kinds import mobileformer as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels of the map, H W space, T = H*W positions, M global tokens, E their channels, N heads, D head dim


def attention(q_BQC: Tensor, k_BKC: Tensor, v_BKC: Tensor, num_heads: int) -> Tensor:
    """Multi-head attention of queries to keys, without any layer around it: (B, Q, C), 2 × (B, K, C) → (B, Q, C)."""
    B, Q, C = q_BQC.shape
    D = C // num_heads
    q, k, v = (t.reshape(B, -1, num_heads, D).transpose(1, 2) for t in (q_BQC, k_BKC, v_BKC))
    attn = (q * D**-0.5 @ k.transpose(2, 3)).softmax(-1)
    return (attn @ v).transpose(1, 2).reshape(B, Q, C)


class MapToTokens(nn.Module):
    """Tokens gather from the raw map, gated by themselves (Section 3.2, Equation 1): (B, C, H, W), (B, M, E) → (B, M, E)."""

    def __init__(self, channels: int, tokens: int, num_heads: int, norm_eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(tokens, channels)
        self.gate = nn.Linear(tokens, channels)
        self.proj = nn.Linear(channels, tokens)
        self.norm = nn.LayerNorm(tokens, eps=norm_eps)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x_BTC = x.flatten(2).transpose(1, 2)
        y_BMC = attention(self.q(z), x_BTC, x_BTC, self.num_heads)
        y_BMC = y_BMC * (2 * F.hardsigmoid(self.gate(z)))
        return self.norm(z + self.drop_path(self.proj(y_BMC)))


class TokenLayer(nn.Module):
    """Raw tokens attend to each other, then an MLP, with a norm after each (Section 3.3, Former): (B, M, E) → same."""

    def __init__(self, spec: grammar.MobileFormer, tokens: int):
        super().__init__()
        self.num_heads = spec.num_heads
        self.q = nn.Linear(tokens, tokens)
        self.proj = nn.Linear(tokens, tokens)
        self.norm1 = nn.LayerNorm(tokens, eps=spec.norm_eps)
        self.mlp = Mlp(tokens, int(tokens * spec.token_expansion), spec.act)
        self.norm2 = nn.LayerNorm(tokens, eps=spec.norm_eps)
        self.drop_path = DropPath()

    def forward(self, z: Tensor) -> Tensor:
        z = self.norm1(z + self.drop_path(self.proj(attention(self.q(z), z, z, self.num_heads))))
        return self.norm2(z + self.drop_path(self.mlp(z)))


class TokensToMap(nn.Module):
    """The raw map gathers from the tokens (Section 3.2, Equation 2): (B, C, H, W), (B, M, E) → (B, C, H, W)."""

    def __init__(self, channels: int, tokens: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.k = nn.Linear(tokens, channels)
        self.v = nn.Linear(tokens, channels)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        y_BTC = attention(x.flatten(2).transpose(1, 2), self.k(z), self.v(z), self.num_heads)
        return x + self.drop_path(y_BTC.transpose(1, 2).reshape(x.shape))


class DynamicRelu(nn.Module):
    """max(a₁x, a₂x) with slopes for each channel by the first token (arXiv 2003.10027, DY-ReLU-B): map, (B, E) → map."""

    def __init__(self, channels: int, tokens: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(tokens, hidden)
        self.fc2 = nn.Linear(hidden, 2 * channels)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        slopes = F.hardsigmoid(self.fc2(F.relu(self.fc1(token)))) - 0.5  # in [-½, ½]
        a1, a2 = slopes.reshape(x.shape[0], 2, x.shape[1], 1, 1).unbind(1)
        return torch.maximum((2 * a1 + 1) * x, 2 * a2 * x)


class Bottleneck(nn.Module):
    """An inverted residual with dynamic activations (Section 3.3, Mobile): (B, C, H, W), (B, E) → (B, width, H, W)."""

    def __init__(self, spec: grammar.MobileFormer, channels: int, tokens: int):
        super().__init__()
        hidden = int(channels * spec.expansion)
        options = {"bias": False, "norm_eps": spec.norm_eps}
        self.expand = ConvNormAct(channels, hidden, **options)
        self.act1 = DynamicRelu(hidden, tokens, spec.relu_hidden)
        self.depthwise = ConvNormAct(hidden, hidden, spec.kernel, groups=hidden, **options)
        self.act2 = DynamicRelu(hidden, tokens, spec.relu_hidden)
        self.project = ConvNormAct(hidden, spec.width, **options)
        self.drop_path = DropPath()
        self.has_residual = spec.width == channels

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        y = self.act1(self.expand(x), token)
        y = self.project(self.act2(self.depthwise(y), token))
        return x + self.drop_path(y) if self.has_residual else y


class StridedBottleneck(nn.Module):
    """Depthwise with stride and 1×1; around a second such pair a residual: (B, C, H, W), (B, E) → (B, width, H', W')."""

    def __init__(self, spec: grammar.MobileFormer, channels: int, tokens: int):
        super().__init__()
        hidden, inner = int(channels * spec.expansion), int(spec.width * spec.inner_expansion)
        options = {"bias": False, "norm_eps": spec.norm_eps}
        self.depthwise1 = ConvNormAct(channels, hidden, spec.kernel, stride=spec.stride, groups=channels, **options)
        self.act1 = DynamicRelu(hidden, tokens, spec.relu_hidden)
        self.project1 = ConvNormAct(hidden, spec.width, **options)
        self.depthwise2 = ConvNormAct(spec.width, inner, spec.kernel, groups=spec.width, **options)
        self.act2 = DynamicRelu(inner, tokens, spec.relu_hidden)
        self.project2 = ConvNormAct(inner, spec.width, **options)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        x = self.project1(self.act1(self.depthwise1(x), token))
        return x + self.drop_path(self.project2(self.act2(self.depthwise2(x), token)))


class MobileFormerBlock(nn.Module):
    """Bridge, tokens, convolutions, bridge (Figure 3): (B, C, H, W), (B, M, E) → (B, width, H', W'), (B, M, E)."""

    def __init__(self, spec: grammar.MobileFormer, x: grammar.Streams):
        super().__init__()
        channels, tokens = x[0].channels, x[1].channels
        self.to_tokens = MapToTokens(channels, tokens, spec.bridge_heads, spec.norm_eps)
        self.former = TokenLayer(spec, tokens)
        self.mobile = (StridedBottleneck if spec.stride > 1 else Bottleneck)(spec, channels, tokens)
        self.to_map = TokensToMap(spec.width, tokens, spec.bridge_heads)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        z = self.former(self.to_tokens(x, z))
        return self.to_map(self.mobile(x, z[:, 0]), z), z


class LiteBottleneck(nn.Module):
    """Depthwise, activation, linear 1×1 (Table 1, bneck-lite): (B, C, H, W) → (B, width, H', W')."""

    def __init__(self, spec: grammar.LiteBottleneck, x: FeatureShape):
        super().__init__()
        hidden = int(x.channels * spec.expansion)
        options = {"bias": False, "norm_eps": spec.norm_eps}
        self.depthwise = ConvNormAct(
            x.channels, hidden, spec.kernel, stride=spec.stride, groups=x.channels, act=spec.act, **options
        )
        self.project = ConvNormAct(hidden, spec.width, **options)
        self.drop_path = DropPath()
        self.has_residual = spec.stride == 1 and spec.width == x.channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(x))
        return x + self.drop_path(y) if self.has_residual else y


class GlobalTokens(nn.Module):
    """Learned tokens beside the map (Section 3.1): (B, C, H, W) → the same, (B, M, E)."""

    def __init__(self, spec: grammar.GlobalTokens, x: FeatureShape):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(spec.num_tokens, spec.token_width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.tokens.expand(x.shape[0], -1, -1)


class MobileFormerClassifier(nn.Module):
    """Pooled map and first token through two linear layers (Section 3.4): (B, C, H, W), (B, M, E) → (B, classes)."""

    def __init__(self, spec: grammar.MobileFormerClassifier, x: grammar.Streams):
        super().__init__()
        channels, tokens = x[0].channels, x[1].channels
        wide = int(channels * spec.expansion)
        self.to_tokens = MapToTokens(channels, tokens, spec.bridge_heads, spec.norm_eps)
        self.conv = ConvNormAct(channels, wide, bias=False, norm_eps=spec.norm_eps, act="relu6")
        self.hidden = nn.Linear(wide + tokens, spec.hidden)
        self.norm: nn.Module = nn.BatchNorm1d(spec.hidden, eps=spec.norm_eps)
        self.head = nn.Linear(spec.hidden, spec.classes)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        token = self.to_tokens(x, z)[:, 0]
        pooled = F.hardswish(self.conv(x).mean((2, 3)))
        return self.head(F.hardswish(self.norm(self.hidden(torch.cat([pooled, token], 1)))))

    def fuse(self) -> None:
        """Fold the norm into the linear layer before it."""
        if isinstance(self.norm, nn.BatchNorm1d):
            gain, shift = norm_affine(self.norm)
            scale_rows(self.hidden, gain)
            add_bias(self.hidden, shift)
            self.norm = nn.Identity()


BLOCKS = {
    grammar.LiteBottleneck: LiteBottleneck,
    grammar.GlobalTokens: GlobalTokens,
    grammar.MobileFormer: MobileFormerBlock,
    grammar.MobileFormerClassifier: MobileFormerClassifier,
}
