"""Each translated operator against PyTorch, on small maps and tokens of odd sizes.

A group of functions becomes one module with a layer for each, so that tracing and
compiling are paid once.
"""

import copy
import functools

import jax.numpy as jnp
import pytest

torch = pytest.importorskip("torch", reason="torch absent: nothing can be translated")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.support import torch_parity  # noqa: E402
from jdissect.converters import torch_graph  # noqa: E402


class Layer(nn.Module):
    """Calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Each(nn.Module):
    """Calls several modules with the same input."""

    def __init__(self, functions):
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                name: f if isinstance(f, nn.Module) else Layer(f)
                for name, f in functions.items()
            }
        )

    def forward(self, x):
        return [layer(x) for layer in self.layers.values()]


@functools.cache
def seeded(*shape):
    """Random numbers; drawn when PyTorch runs first, constants when it is exported."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


MAPS = seeded(2, 6, 7, 9)  # images, channels, rows, columns
TOKENS = seeded(3, 5, 8)

_OF_TORCH = (
    *("abs", "neg", "exp", "expm1", "sin", "cos", "tan", "tanh", "sinh", "cosh"),
    *("atan", "erf", "erfc", "sigmoid", "floor", "ceil", "round", "trunc", "sign"),
    *("square", "relu", "isnan", "logical_not"),
)
_ACTIVATIONS = (
    *("relu6", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu"),
    *("elu", "selu", "celu", "softplus", "softsign", "logsigmoid", "hardshrink"),
    "softshrink",
)
ELEMENTS = {
    **{name: getattr(torch, name) for name in _OF_TORCH},
    **{name: getattr(F, name) for name in _ACTIVATIONS},
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "threshold": lambda x: F.threshold(x, 0.2, -1.5),
    "log": lambda x: torch.log(x.abs() + 0.1),
    "log1p": lambda x: torch.log1p(x.abs()),
    "log2": lambda x: torch.log2(x.abs() + 0.1),
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.1),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.5),
    "asin": lambda x: torch.asin(x.tanh()),
    "acos": lambda x: torch.acos(x.tanh()),
    "pow": lambda x: x**3 + x.abs() ** 0.5 + (x.abs() + 1) ** -2,
    "pow_of_scalar": lambda x: 2.0**x,
    "add_alpha": lambda x: torch.add(x, x.abs(), alpha=0.3),
    "sub_alpha": lambda x: torch.sub(x, x.abs(), alpha=2),
    "rsub": lambda x: 1 - x,
    "div": lambda x: x / 3 + 1 / (x.abs() + 1),
    "div_floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "div_trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "remainder": lambda x: torch.remainder(x, 0.7),
    "fmod": lambda x: torch.fmod(x, 0.7),
    "maximum": lambda x: torch.maximum(x, -x) + torch.minimum(x, x * x),
    "atan2": lambda x: torch.atan2(x, x * x + 0.5),
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "clamp": lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp_max(0.2),
    "compare": lambda x: (x > 0.1) & (x <= 1) | (x == 0) | ~(x >= -1),
    "where": lambda x: torch.where(x > 0, x, torch.zeros(())),
    "where_scalar": lambda x: torch.where(x > 0.5, 1.0, x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 2.5),
    "nan_to_num": lambda x: torch.nan_to_num(torch.log(x), nan=0.5, neginf=-3.0),
    "dropout": nn.Dropout(0.5).eval(),
    "integers": lambda x: (x.long() * 2 + 1) // 3 % 5,
    "to_float": lambda x: (x > 0).float() * x.int().to(torch.float32),
    "broadcast": lambda x: x * torch.linspace(0, 1, x.shape[-1]),
    "broadcast_channels": lambda x: x + torch.arange(x.shape[1]).view(-1, 1, 1),
}

CONVOLUTIONS = {
    "plain": nn.Conv2d(6, 5, 3),
    "wide": nn.Conv2d(6, 30, 3, stride=2, padding=1, bias=False),
    "pointwise": nn.Conv2d(6, 7, 1),
    "pointwise_stride": nn.Conv2d(6, 7, 1, stride=(2, 3)),
    "pointwise_padded": nn.Conv2d(6, 7, 1, padding=1),
    "depthwise": nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6),
    "depthwise_dilated": nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6),
    "depthwise_multiplied": nn.Conv2d(6, 12, 3, padding=1, groups=6),
    "grouped": nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
    "grouped_dilated": nn.Conv2d(6, 9, 3, padding=(2, 4), dilation=(1, 2), groups=3),
    "winograd": nn.Sequential(nn.Conv2d(6, 32, 1), nn.Conv2d(32, 24, 3, padding=1)),
    "winograd_dilated": nn.Sequential(
        nn.Conv2d(6, 24, 1), nn.Conv2d(24, 24, 3, padding=2, dilation=2)
    ),
    "whole": nn.Conv2d(6, 5, (7, 9), stride=(2, 1)),
    "uneven": nn.Conv2d(6, 5, (3, 5), stride=(2, 1), padding=(0, 2)),
    "same": nn.Conv2d(6, 5, (3, 5), padding="same", dilation=(1, 2)),
    "reflect": nn.Conv2d(6, 5, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(6, 5, 3, padding=1, padding_mode="circular"),
    "transposed": nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1),
    "transposed_grouped": nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, bias=False),
    "transposed_odd": nn.ConvTranspose2d(
        6, 4, 3, stride=3, padding=2, output_padding=1, dilation=2
    ),
    "batch_norm": nn.Sequential(nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(True)),
    "batch_norm_alone": nn.BatchNorm2d(6),
    "batch_norm_plain": nn.BatchNorm2d(6, affine=False),
    "group_norm": nn.GroupNorm(3, 6),
    "instance_norm": nn.InstanceNorm2d(6, affine=True),
    "layer_norm_maps": nn.LayerNorm((7, 9)),
    "pixel_shuffle": nn.Sequential(nn.Conv2d(6, 12, 1), nn.PixelShuffle(2)),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :6, :8], 2),
    "channel_shuffle": nn.ChannelShuffle(3),
    "conv1d": lambda x: F.conv1d(x.mean(3), seeded(4, 3, 3), padding=1, groups=2),
    "unfold": lambda x: F.unfold(x, (3, 2), padding=1, stride=2),
    "prelu": nn.PReLU(6),
    "prelu_one": nn.PReLU(),
}

POOLING = {
    "max": nn.MaxPool2d(3, 2, 1),
    "max_dilated": nn.MaxPool2d(2, 2, dilation=2),
    "max_ceil": nn.MaxPool2d(2, ceil_mode=True),
    "max_ceil_padded": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "avg": nn.AvgPool2d(2),
    "avg_padded": nn.AvgPool2d(3, 2, 1),
    "avg_unpadded": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg_ceil": nn.AvgPool2d((2, 3), (3, 2), (1, 1), ceil_mode=True),
    "avg_ceil_unpadded": nn.AvgPool2d(
        (2, 3), (3, 2), (1, 1), ceil_mode=True, count_include_pad=False
    ),
    "avg_divisor": nn.AvgPool2d(2, divisor_override=3),
    "adaptive": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive_larger": nn.AdaptiveAvgPool2d((8, None)),
    "adaptive_one": nn.AdaptiveAvgPool2d(1),
    "adaptive_max": nn.AdaptiveMaxPool2d((3, 4)),
    "adaptive_1d": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 5),
    **{
        f"{mode}_{size}_{corners}": functools.partial(
            F.interpolate, size=size, mode=mode, align_corners=corners
        )
        for mode in ("bilinear", "bicubic")
        for size in ((11, 5), (1, 18))
        for corners in (False, True)
    },
    **{
        f"{mode}_{size}": functools.partial(F.interpolate, size=size, mode=mode)
        for mode in ("nearest", "nearest-exact")
        for size in ((11, 5), (14, 18))
    },
    "nearest_factor": lambda x: F.interpolate(x, scale_factor=1.7),
    "bilinear_factor": lambda x: F.interpolate(
        x, scale_factor=(1.7, 0.6), mode="bilinear"
    ),
    "bilinear_antialiased": lambda x: F.interpolate(
        x, (3, 5), mode="bilinear", antialias=True
    ),
    "bicubic_antialiased": lambda x: F.interpolate(
        x, (3, 12), mode="bicubic", antialias=True
    ),
    **{
        f"pad_{mode}": functools.partial(F.pad, pad=(2, 1, 0, 3), mode=mode)
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    "pad_negative": lambda x: F.pad(x, (-1, 2, 1, -2), value=0.5),
}

ARRANGEMENTS = {
    "permute": lambda x: x.permute(0, 2, 3, 1) * torch.arange(6),
    "permute_back": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, -1).transpose(2, 3),
    "flatten": lambda x: x.flatten(2).transpose(1, 2),
    "view": lambda x: x.contiguous().view(x.shape[0], -1, 3, 7, 9),
    "unflatten": lambda x: x.unflatten(1, (2, 3)).flip(2),
    "squeeze": lambda x: x[:, :1].squeeze().unsqueeze(-1),
    "expand": lambda x: x[:, :, :1].expand(-1, -1, 4, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=2),
    "cat": lambda x: torch.cat([x, x * 2, x.permute(0, 1, 2, 3)], 1),
    "cat_rows": lambda x: torch.cat([x[:, :, ::2], x], dim=-2),
    "stack": lambda x: torch.stack([x, -x], 2),
    "slice": lambda x: x[:, 1:-1:2, 2:, -3:],
    "select": lambda x: x[:, -1, 2],
    "narrow": lambda x: x.narrow(3, 2, 4),
    "chunk": lambda x: torch.cat(x.chunk(4, 1)[::-1], 1),
    "split": lambda x: x.split([2, 3, 2], 2)[1] + x.split(3, 2)[0],
    "tensor_split": lambda x: x.tensor_split(4, 3)[2],
    "unbind": lambda x: sum(x.unbind(2)),
    "roll": lambda x: x.roll((2, -1), (1, 3)),
    "flip": lambda x: x.flip((1, 3)),
    "index": lambda x: x[:, torch.tensor([[0, 2], [5, -1]]), :, 1],
    "index_pair": lambda x: x[:, [1, 2, 3], [0, 4, 6]],
    "index_select": lambda x: x.index_select(3, torch.tensor([8, 0, 3])),
    "gather": lambda x: x.gather(1, x.argsort(1)[:, :2]),
    "embedding": lambda x: F.embedding((x > 0).long(), seeded(2, 3)),
    "triangles": lambda x: x.triu(1) + x.tril(-2),
    "meshgrid": lambda x: (
        x * torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")[1]
    ),
    "slice_assigned": lambda x: _assigned(x),
    "changed_view": lambda x: _changed(x),
    "like": lambda x: torch.ones_like(x) + torch.full_like(x, 0.5) + x.new_zeros(9),
    "created": lambda x: x + torch.eye(7, 9) + torch.zeros(9) + torch.full((9,), 0.5),
}

REDUCTIONS = {
    "mean": lambda x: x.mean((2, 3)),
    "mean_kept": lambda x: x.mean((-2, -1), keepdim=True),
    "mean_rows": lambda x: x.mean(2),
    "mean_channels": lambda x: x.mean(1, keepdim=True),
    "sum": lambda x: x.sum((1, 3)),
    "sum_of_booleans": lambda x: (x > 0).sum(1),
    "amax": lambda x: x.amax((1, 2)) + x.amin(1, keepdim=True)[:, 0, 0, 0][:, None],
    "max": lambda x: x.max(1).values + x.min(1)[0],
    "argmax": lambda x: x.argmax(1) + x.argmin(2, keepdim=True)[:, 0],
    "var": lambda x: x.var(1),
    "var_biased": lambda x: x.var((2, 3), unbiased=False, keepdim=True),
    "std": lambda x: x.std((1, 2), correction=0),
    "var_mean": lambda x: sum(torch.var_mean(x, (2, 3))),
    "norm": lambda x: (
        x.norm(dim=1, keepdim=True) + x.norm(p=1, dim=(2, 3))[:, :, None, None]
    ),
    "normalize": lambda x: F.normalize(x, dim=1),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: x.logsumexp(1),
    "cumsum": lambda x: x.cumsum(1),
    "sort": lambda x: x.sort(1, descending=True).values + x.sort(1)[1],
    "topk": lambda x: x.topk(3, 1)[0],
    "topk_smallest": lambda x: x.topk(2, -1, largest=False)[0],
    "prod": lambda x: x.prod(1),
    "any": lambda x: (x > 1).any(1) | (x > -1).all(1),
}


def attend(x, **options):
    heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
    mask = options.pop("mask", None)
    return F.scaled_dot_product_attention(
        heads, heads * 0.5, heads + 1, attn_mask=mask, **options
    )


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


PRODUCTS = {
    "linear": nn.Linear(8, 6),
    "linear_unbiased": nn.Linear(8, 6, bias=False),
    "matmul": lambda x: x @ x.transpose(1, 2),
    "matmul_one": lambda x: x @ seeded(8),
    "bmm": lambda x: torch.bmm(x, x.mT),
    "addmm": lambda x: torch.addmm(seeded(6), x[:, 0], seeded(8, 6), beta=0.5),
    "baddbmm": lambda x: torch.baddbmm(x[:, :, :5], x, x.mT, alpha=0.3),
    "einsum": lambda x: torch.einsum("b i c, b j c -> b i j", x, x),
    "einsum_of_three": lambda x: torch.einsum("bic,cd,bjd->bij", x, seeded(8, 8), x),
    "attention": attend,
    "attention_causal": functools.partial(attend, is_causal=True, scale=0.7),
    "attention_mask": functools.partial(attend, mask=seeded(5, 5)),
    "attention_hidden": functools.partial(attend, mask=seeded(5, 5) > -1),
    "multi_head": Attention(),
    "encoder": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
    "layer_norm": nn.LayerNorm(8),
    "layer_norm_plain": nn.LayerNorm(8, elementwise_affine=False, eps=1e-3),
    "rms_norm": nn.RMSNorm(8),
    "batch_norm_of_tokens": nn.Sequential(nn.Flatten(1), nn.BatchNorm1d(40)),
    "glu": lambda x: F.glu(x, -1),
    "softmax": lambda x: x.softmax(-1, dtype=torch.float32),
}


def _assigned(x):
    x = x.clone()
    x[:, 1:3] = x[:, 3:5] * 2
    x[:, 0, 2] += 1
    return x


def _changed(x):
    x = x * 1
    x.view(-1).mul_(2)
    x[:, :1].relu_()
    return x + 1


GROUPS = {
    "elements": (ELEMENTS, MAPS),
    "convolutions": (CONVOLUTIONS, MAPS),
    "pooling": (POOLING, MAPS),
    "arrangements": (ARRANGEMENTS, MAPS),
    "reductions": (REDUCTIONS, MAPS),
    "products": (PRODUCTS, TOKENS),
}
# In bfloat16 the position of the largest, and a rounded value, may be another.
JUMPS = {"floor", "ceil", "round", "trunc", "div_floor", "div_trunc", "integers"}
JUMPS |= {"remainder", "fmod", "argmax", "sort", "gather", "to_float", "compare"}
JUMPS |= {"nan_to_num", "sum_of_booleans", "any", "embedding", "topk"}


@functools.cache
def translated(group):
    """Returns the module of a group, its translation, and PyTorch's outputs."""
    functions, images = GROUPS[group]
    numbered = {f"f{i}": function for i, function in enumerate(functions.values())}
    module = torch_parity.randomize(Each(numbered))
    layers = [f"layers.{name}" for name in numbered]
    expected = torch_parity.by_torch(module, images, layers)
    return module, torch_graph.translate(module, images, layers), expected


@functools.cache
def differences(group):
    """Returns operator -> largest difference in float32."""
    functions, images = GROUPS[group]
    _, translation, expected = translated(group)
    found = torch_parity.largest(torch_parity.by_jax(translation, images), expected)
    return dict(zip(functions, found.values(), strict=True))


@functools.cache
def differences_in_half(group):
    """Returns operator -> typical difference in bfloat16, ours and PyTorch's."""
    functions, images = GROUPS[group]
    module, translation, expected = translated(group)
    found = torch_parity.by_jax(translation, images, jnp.bfloat16)
    ours = torch_parity.typical(found, expected).values()
    theirs = _in_half(module, images, expected)
    pairs = zip(ours, theirs, strict=True)
    return dict(zip(functions, pairs, strict=True))


def _in_half(module, images, expected):
    """Yields the same of PyTorch in bfloat16, or None where it has no such form."""
    parts = module.layers.values()
    for part, (name, exact) in zip(parts, expected.items(), strict=True):
        try:
            with torch.no_grad():
                found = copy.deepcopy(part).bfloat16()(images.bfloat16())
        except (NotImplementedError, RuntimeError):
            yield None
            continue
        yield torch_parity.typical({name: found.float().numpy()}, {name: exact})[name]


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group, (functions, _) in GROUPS.items() for name in functions],
)
def test_operator(group, name):
    assert differences(group)[name] <= 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name"),
    [
        (group, name)
        for group, (functions, _) in GROUPS.items()
        for name in functions
        if name not in JUMPS
    ],
)
def test_operator_in_bfloat16(group, name):
    ours, theirs = differences_in_half(group)[name]
    assert theirs is None or ours <= 1.25 * theirs + 1e-3
