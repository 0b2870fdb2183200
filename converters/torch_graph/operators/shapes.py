"""Translates what arranges elements anew: shapes, slices, concatenation, padding."""

import operator

import jax.numpy as jnp
import numpy as np
from jax import lax
from jdissect.converters.torch_graph.values import (
    Maps,
    Untranslated,
    alike,
    channels_last,
    on_plain,
    plain,
    with_axes,
)

_END = 2**62  # PyTorch's largest end of a slice is 2**63 - 1


def view(x, size):
    """aten.view, reshape."""
    return jnp.reshape(plain(x), tuple(size))


@on_plain
def flatten(x, start_dim=0, end_dim=-1):
    """aten.flatten."""
    start, end = start_dim % x.ndim, end_dim % x.ndim
    count = 1
    for size in x.shape[start : end + 1]:
        count = count * size
    return x.reshape(*x.shape[:start], count, *x.shape[end + 1 :])


@on_plain
def unflatten(x, dim, sizes):
    """aten.unflatten."""
    dim %= x.ndim
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def permute(x, dims):
    """aten.permute; between both orders of maps nothing moves."""
    dims = [dim % x.ndim for dim in dims]
    if isinstance(x, Maps) and dims == [0, 2, 3, 1]:
        return x.array
    if not isinstance(x, Maps) and dims == [0, 3, 1, 2]:
        return Maps(x)
    return plain(x).transpose(dims)


def transpose(x, dim0, dim1):
    """aten.transpose."""
    dims = [*range(x.ndim)]
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(x, dims)


@on_plain
def squeeze(x, dim=None):
    """aten.squeeze of all dimensions of size 1, or of those given that have it."""
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    ones = {d % x.ndim for d in dims if _is_one(x.shape[d])}
    return jnp.squeeze(x, tuple(sorted(ones)))


def _is_one(size) -> bool:
    return isinstance(size, int) and size == 1


@on_plain
def unsqueeze(x, dim):
    """aten.unsqueeze."""
    return jnp.expand_dims(x, dim)


@on_plain
def expand(x, size, implicit=False):
    """aten.expand; -1 keeps a dimension."""
    added = len(size) - x.ndim
    kept = [None] * added + list(x.shape)
    shape = [
        old if isinstance(new, int) and new == -1 else new
        for new, old in zip(size, kept, strict=True)
    ]
    return jnp.broadcast_to(x, tuple(shape))


@on_plain
def repeat(x, repeats):
    """aten.repeat, tile."""
    return jnp.tile(x, tuple(repeats))


@on_plain
def repeat_interleave(x, repeats, dim=None, output_size=None):
    """aten.repeat_interleave by one number."""
    if not isinstance(repeats, int):
        raise Untranslated("repeats that differ by element")
    return jnp.repeat(x, repeats, axis=dim)


def cat(tensors, dim=0):
    """aten.cat; of maps if one of them is."""
    rank = max(t.ndim for t in tensors)
    tensors = [t for t in tensors if t.ndim == rank]  # PyTorch ignores empty ones
    if any(isinstance(t, Maps) for t in tensors):
        arrays = alike([channels_last(t) for t in tensors])
        _, (axis,), _ = with_axes(Maps(arrays[0]), (dim,))
        return Maps(jnp.concatenate(arrays, axis))
    return jnp.concatenate(alike(tensors), dim)


@on_plain
def stack(tensors, dim=0):
    """aten.stack."""
    return jnp.stack(alike(tensors), dim)


def slice_(x, dim=0, start=None, end=None, step=1):
    """aten.slice."""
    array, (axis,), back = with_axes(x, (dim,))
    size = array.shape[axis]
    end = None if isinstance(end, int) and end > _END else end
    if not isinstance(size, int):  # the batch
        index = [slice(None)] * array.ndim
        index[axis] = slice(start, end, step)
        return back(array[tuple(index)])
    first, last, step = slice(start, end, step).indices(size)
    return back(lax.slice_in_dim(array, first, max(first, last), step, axis))


@on_plain
def select(x, dim, index):
    """aten.select."""
    return lax.index_in_dim(x, index, dim % x.ndim, keepdims=False)


@on_plain
def narrow_to(x, dim, start, length):
    """aten.narrow."""
    return lax.slice_in_dim(x, start, start + length, axis=dim % x.ndim)


def _cut(x, dim, sizes):
    array, (axis,), back = with_axes(x, (dim,))
    ends = np.cumsum(sizes)[:-1].tolist()
    return tuple(back(part) for part in jnp.split(array, ends, axis))


def split(x, size, dim=0):
    """aten.split, split_with_sizes."""
    if isinstance(size, list | tuple):
        return _cut(x, dim, size)
    total = x.shape[dim]
    starts = range(0, total, size)
    return _cut(x, dim, [min(size, total - start) for start in starts])


def chunk(x, chunks, dim=0):
    """aten.chunk: all of one size, but the last."""
    return split(x, -(-x.shape[dim] // chunks), dim)


def tensor_split(x, sections, dim=0):
    """aten.tensor_split into a number of parts."""
    if not isinstance(sections, int):
        starts = [0, *sections, x.shape[dim]]
        return _cut(x, dim, np.diff(starts).tolist())
    size, more = divmod(x.shape[dim], sections)
    return _cut(x, dim, [size + (i < more) for i in range(sections)])


@on_plain
def unbind(x, dim=0):
    """aten.unbind."""
    dim %= x.ndim
    parts = range(x.shape[dim])
    return tuple(lax.index_in_dim(x, i, dim, keepdims=False) for i in parts)


def roll(x, shifts, dims=()):
    """aten.roll."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if not dims:
        flat = plain(x)
        return jnp.roll(flat.reshape(-1), shifts[0]).reshape(flat.shape)
    array, axes, back = with_axes(x, dims)
    return back(jnp.roll(array, shifts, axes))


def flip(x, dims):
    """aten.flip."""
    array, axes, back = with_axes(x, dims)
    return back(jnp.flip(array, axes))


_MODES = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def pad(x, pad, mode="constant", value=None):
    """aten.pad: (before, after) of the last dimension first; negative ones cut."""
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    pairs = [*reversed(pairs)]
    dims = range(x.ndim - len(pairs), x.ndim)
    array, axes, back = with_axes(x, dims)
    widths = [(0, 0)] * array.ndim
    for axis, (before, after) in zip(axes, pairs, strict=True):
        widths[axis] = (max(before, 0), max(after, 0))
        if before < 0 or after < 0:
            start, end = max(-before, 0), array.shape[axis] - max(-after, 0)
            array = lax.slice_in_dim(array, start, end, axis=axis)
    options = {"constant_values": value or 0} if mode == "constant" else {}
    return back(jnp.pad(array, widths, mode=_MODES[mode], **options))


def constant_pad_nd(x, pad_, value=0):
    """aten.constant_pad_nd."""
    return pad(x, pad_, "constant", value)


def reflection_pad(x, padding):
    """aten.reflection_pad1d, reflection_pad2d."""
    return pad(x, padding, "reflect")


def replication_pad(x, padding):
    """aten.replication_pad1d, replication_pad2d."""
    return pad(x, padding, "replicate")


@on_plain
def index(x, indices):
    """aten.index: by arrays of integers or, with None, all."""
    if any(i is not None and i.dtype == jnp.bool_ for i in indices):
        raise Untranslated("indexing by a mask, which has a size that depends on data")
    return x[tuple(slice(None) if i is None else i for i in indices)]


@on_plain
def index_select(x, dim, index):
    """aten.index_select."""
    return jnp.take(x, index, axis=dim)


@on_plain
def index_put(x, indices, values, accumulate=False):
    """aten.index_put."""
    if any(i is not None and i.dtype == jnp.bool_ for i in indices):
        raise Untranslated("indexing by a mask, which has a size that depends on data")
    place = x.at[tuple(slice(None) if i is None else i for i in indices)]
    values = jnp.asarray(values).astype(x.dtype)
    return place.add(values) if accumulate else place.set(values)


@on_plain
def gather(x, dim, index, sparse_grad=False):
    """aten.gather; an index may be smaller than x in other dimensions."""
    dim %= max(x.ndim, 1)
    sizes = [
        slice(None) if axis == dim else slice(0, size)
        for axis, size in enumerate(index.shape)
    ]
    return jnp.take_along_axis(x[tuple(sizes)], index, dim)


@on_plain
def embedding(weight, indices, *_, **__):
    """aten.embedding."""
    return jnp.take(weight, indices, axis=0)


@on_plain
def slice_scatter(x, source, dim=0, start=None, end=None, step=1):
    """aten.slice_scatter: x with a slice replaced."""
    place = [slice(None)] * x.ndim
    end = None if isinstance(end, int) and end > _END else end
    place[dim] = slice(start, end, step)
    return x.at[tuple(place)].set(source.astype(x.dtype))


@on_plain
def select_scatter(x, source, dim, index):
    """aten.select_scatter: x with one index of a dimension replaced."""
    place = [slice(None)] * x.ndim
    place[dim] = index
    return x.at[tuple(place)].set(source.astype(x.dtype))


@on_plain
def triangle_above(x, diagonal=0):
    """aten.triu."""
    return jnp.triu(x, diagonal)


@on_plain
def triangle_below(x, diagonal=0):
    """aten.tril."""
    return jnp.tril(x, diagonal)


@on_plain
def meshgrid(tensors, indexing="ij"):
    """aten.meshgrid."""
    return tuple(jnp.meshgrid(*tensors, indexing=indexing))


def channel_shuffle(x, groups):
    """aten.channel_shuffle."""
    images = channels_last(x)
    shape = images.shape
    images = images.reshape(*shape[:3], groups, -1).swapaxes(-1, -2)
    return Maps(images.reshape(shape))


OPERATORS = {
    "view": view,
    "_unsafe_view": view,
    "reshape": view,
    "view_copy": view,
    "flatten": flatten,
    "unflatten": unflatten,
    "permute": permute,
    "transpose": transpose,
    "swapaxes": transpose,
    "t": lambda x: permute(x, [*reversed(range(x.ndim))]),
    "numpy_T": lambda x: permute(x, [*reversed(range(x.ndim))]),
    "mT": lambda x: transpose(x, -2, -1),
    "movedim": on_plain(jnp.moveaxis),
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "expand": expand,
    "expand_as": lambda x, other: expand(x, list(other.shape)),
    "view_as": lambda x, other: view(x, other.shape),
    "reshape_as": lambda x, other: view(x, other.shape),
    "broadcast_to": expand,
    "repeat": repeat,
    "tile": repeat,
    "repeat_interleave": repeat_interleave,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": stack,
    "slice": slice_,
    "select": select,
    "narrow": narrow_to,
    "split": split,
    "split_with_sizes": split,
    "chunk": chunk,
    "tensor_split": tensor_split,
    "unbind": unbind,
    "roll": roll,
    "flip": flip,
    "pad": pad,
    "constant_pad_nd": constant_pad_nd,
    **{f"reflection_pad{rank}d": reflection_pad for rank in (1, 2)},
    **{f"replication_pad{rank}d": replication_pad for rank in (1, 2)},
    "index": index,
    "_unsafe_index": index,
    "index_select": index_select,
    "index_put": index_put,
    "_unsafe_index_put": index_put,
    "gather": gather,
    "embedding": embedding,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    "triu": triangle_above,
    "tril": triangle_below,
    "meshgrid": meshgrid,
    "channel_shuffle": channel_shuffle,
    "tuple": lambda parts: tuple(parts),
    "python.getitem": operator.getitem,
}
