"""Which of the networks in a PyTorch file is converted.

Training programs keep more than one: averaged weights beside the raw ones, a momentum
encoder, a student and its teacher; and they wrap networks, so that tensors' names begin
with 'module.', 'encoder_q.' or 'backbone.'. Every choice is said.
"""

import collections
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from jdissect.converters.convert import UNUSED

from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.converters import torch_files

WEIGHTS = ("raw", "ema")

# What torch.compile and FSDP put into names, at any place.
_WRAPPERS = r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
# Parts of names, between dots, of averaged weights and momentum encoders.
_AVERAGED = (
    r"(?i)(?:.*_)?(?:ema|average|averaged|avg|swa)(?:_.*)?"
    r"|encoder_k|key_encoder|momentum_.*|.*_momentum"
)
# Heads of networks whose backbones may be dilated, which tensors do not show.
_DENSE = r"(?:^|\.)(?:aux_classifier|decode_head|auxiliary_head|classifier\.0\.convs)\."


class Taken(NamedTuple):
    """A network's tensors.

    Attributes:
      tensors: name, without prefix, -> array in PyTorch's layout.
      where: the file, and what of it, for messages.
      notes: what was chosen and left out, a line each.
      source: of `model.json`.
      origin: a line that says what was read.
    """

    tensors: dict[str, np.ndarray]
    where: str
    notes: list[str]
    source: dict[str, Any]
    origin: str


class _Network(NamedTuple):
    """A network in a file: the key of its dict, and what its tensors begin with."""

    key: torch_files.Key
    prefix: str

    @property
    def label(self) -> str:
        return printable(".".join([*self.key, self.prefix]).rstrip(".")) or "the file"


def take(
    file: torch_files.TorchFile,
    roots: Callable[[Collection[str]], list[str]],
    weights: str | None = None,
    prefix: str = "",
) -> Taken:
    """The tensors of one network of a file.

    Args:
      file: read.
      roots: from tensors' names to what they begin with ('' or 'backbone.') where there
        is a network of the kind that is looked for.
      weights: 'raw' or 'ema', where the file has both; None: raw ones, if it has any.
      prefix: of the tensors' names, or a key above them; the end of it is enough.

    Raises:
      UserError: what was asked for is not there, or more than one network is.
    """
    states, wrapped = {}, False
    for key, state in file.states.items():
        plain = {re.sub(_WRAPPERS, "", name): value for name, value in state.items()}
        fits = len(plain) == len(state)
        wrapped |= fits and plain.keys() != state.keys()
        states[key] = plain if fits else state
    networks = [_Network(key, root) for key in states for root in roots(states[key])]
    if not networks and not prefix:
        return _anything(file)
    networks = _distinct(states, networks)
    wanted = _under(prefix, networks, file) if prefix else networks
    chosen, notes, source = _choose(file, networks, wanted, weights)
    if wrapped:
        notes.append("'_orig_mod.' and the like are taken out of tensors' names")
    state, start = states[chosen.key], len(chosen.prefix)
    tensors = {k[start:]: v for k, v in state.items() if k.startswith(chosen.prefix)}
    where = str(file.path)
    if chosen.prefix:
        shown = printable(chosen.prefix)
        where += f" (under {shown!r})"
        notes.append(f"tensors' names begin with {shown!r}, which is taken off")
        outside = [name for name in state if not name.startswith(chosen.prefix)]
        notes += _left_out(outside, chosen.prefix)
    source = {"file": file.path.name, "sha256": file.sha256, **source}
    arrays = torch_files.to_numpy(tensors, where)
    return Taken(arrays, where, notes, source, _origin(file, chosen.key))


def _anything(file: torch_files.TorchFile) -> Taken:
    """For a file without such a network, so that the converter says what it lacks."""
    source = {"file": file.path.name, "sha256": file.sha256}
    origin = _origin(file, file.likely)
    return Taken(file.tensors, str(file.path), [], source, origin)


def _under(prefix: str, networks: list[_Network], file) -> list[_Network]:
    wanted = f".{prefix.strip('.')}."
    found = [n for n in networks if f".{n.label}.".endswith(wanted)]
    if not found:
        labels = ", ".join(network.label for network in networks) or "none"
        raise UserError(
            f"checkpoint {file.path} has no such network under "
            f"--prefix={printable(prefix)}; there are: {labels}"
        )
    return found


def _choose(
    file: torch_files.TorchFile,
    networks: list[_Network],
    wanted: list[_Network],
    weights: str | None,
) -> tuple[_Network, list[str], dict[str, Any]]:
    """The one of `wanted` to take, what to say of it, and what `model.json` keeps."""
    averaged = {network for network in networks if _is_averaged(file, network)}
    kind = weights or ("raw" if set(wanted) - averaged else "ema")
    found = [n for n in wanted if (n in averaged) == (kind == "ema")]
    words = {"raw": "raw", "ema": "averaged (EMA)"}
    other = "ema" if kind == "raw" else "raw"
    if not found:
        raise UserError(
            f"checkpoint {file.path} has no {words[kind]} weights (--weights={kind}); "
            f"it has {words[other]} ones: {_labels(wanted)}"
        )
    if len(found) > 1:
        raise UserError(
            f"checkpoint {file.path} holds {len(found)} networks: {_labels(found)}.\n"
            "Choose one with --prefix=NAME."
        )
    (chosen,) = found
    if not averaged:
        return chosen, [], {}
    others = [n for n in networks if (n in averaged) != (kind == "ema")]
    note = f"took the {words[kind]} weights, {chosen.label!r}; "
    if others:
        note += f"{words[other]} ones are there, too: {_labels(others)}"
        note += f" (--weights={other})"
    else:
        note += f"there are no {words[other]} ones"
    left = [network.label for network in others]
    return chosen, [note], {"weights": kind, "taken": chosen.label, "left": left}


def _labels(networks: list[_Network]) -> str:
    return listed([repr(network.label) for network in networks])


def _is_averaged(file: torch_files.TorchFile, network: _Network) -> bool:
    # Lightning's WeightAveraging puts the averaged ones where the raw ones were.
    if network.key == ("state_dict",) and ("current_model_state",) in file.states:
        return True
    if any(re.fullmatch(_AVERAGED, part) for part in network.label.split(".")):
        return True
    parents = {re.sub(r"module\.$", "", network.prefix), network.prefix}
    state = file.states[network.key]
    return any(f"{parent}n_averaged" in state for parent in parents)


def _distinct(states: Mapping, networks: list[_Network]) -> list[_Network]:
    """Without those that are another's very tensors, registered under two names."""
    found: dict[Any, _Network] = {}
    for network in networks:
        state, prefix = states[network.key], network.prefix
        same = tuple(
            (name[len(prefix) :], _place(value))
            for name, value in sorted(state.items(), key=lambda item: item[0])
            if name.startswith(prefix)
        )
        found.setdefault(same, network)
    return list(found.values())


def _place(tensor: Any) -> int:
    """Where its numbers are; another number for every tensor that has none."""
    try:
        return tensor.data_ptr() or id(tensor)
    except RuntimeError:
        return id(tensor)


def _left_out(names: list[str], prefix: str) -> list[str]:
    """Lines on the tensors that are not under the prefix, by the parts they are of."""
    names = [name for name in names if not re.search(UNUSED, name)]
    if not names:
        return []
    counts = collections.Counter(_part(name, prefix) for name in names)
    alone = set(names)
    parts = [k if k in alone else f"{k}.* ({n})" for k, n in counts.items()]
    notes = [f"left out {len(names)} tensors outside of it: {listed(parts, 8)}"]
    if any(re.search(_DENSE, name) for name in names):
        notes.append(
            "the file does not say whether the backbone is dilated, as segmenters' may "
            "be; it is taken for one that is not"
        )
    return notes


def _part(name: str, prefix: str) -> str:
    """The name up to where it leaves the prefix."""
    parts, others = name.split("."), prefix.split(".")
    same = 0
    while same < len(parts) - 1 and parts[same] == others[same]:
        same += 1
    return ".".join(parts[: same + 1])


def _origin(file: torch_files.TorchFile, key: torch_files.Key) -> str:
    keys = "".join(f"[{printable(name)!r}]" for name in key)
    return f"{file.path.name}{keys}, sha256 {file.sha256}"
