"""Chooses which network in a PyTorch file to convert.

Training programs keep several: averaged weights beside the raw ones, a momentum
encoder, a student and its teacher. They also wrap networks, so that tensor names begin
with 'module.', 'encoder_q.' or 'backbone.'. Every choice is reported.
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

# Inserted into names by torch.compile and FSDP, at any position.
_WRAPPERS = r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
# Parts of names, between dots, that mark averaged weights and momentum encoders.
_AVERAGED = (
    r"(?i)(?:.*_)?(?:ema|average|averaged|avg|swa)(?:_.*)?"
    r"|encoder_k|key_encoder|momentum_.*|.*_momentum"
)
# Heads of networks whose backbones may be dilated, which the tensors do not show.
_DENSE = r"(?:^|\.)(?:aux_classifier|decode_head|auxiliary_head|classifier\.0\.convs)\."


class Taken(NamedTuple):
    """The tensors of one network.

    Attributes:
      tensors: name, without prefix, -> array in PyTorch's layout.
      where: the file and the place in it, for messages.
      notes: what was chosen and left out, one line each.
      source: entries for the `source` of `model.json`.
      origin: line that says what was read.
    """

    tensors: dict[str, np.ndarray]
    where: str
    notes: list[str]
    source: dict[str, Any]
    origin: str


class _Network(NamedTuple):
    """A network in a file: the key of its dict, and the prefix of its tensors."""

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
    """Returns the tensors of one network in a file.

    Args:
      file: the opened file.
      roots: maps tensor names to the prefixes ('' or 'backbone.') under which there is
        a network of the wanted kind.
      weights: 'raw' or 'ema', if the file has both; None: raw ones, if there are any.
      prefix: prefix of the tensor names, or a key above them; its end is enough.

    Raises:
      UserError: the requested network does not exist, or several networks match.
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
        notes.append("removed '_orig_mod.' and the like from tensor names")
    state, start = states[chosen.key], len(chosen.prefix)
    tensors = {k[start:]: v for k, v in state.items() if k.startswith(chosen.prefix)}
    where = str(file.path)
    if chosen.prefix:
        shown = printable(chosen.prefix)
        where += f" (under {shown!r})"
        notes.append(f"removed the prefix {shown!r} from tensor names")
        outside = [name for name in state if not name.startswith(chosen.prefix)]
        notes += _left_out(outside, chosen.prefix)
    source = {"file": file.path.name, "sha256": file.sha256, **source}
    arrays = torch_files.to_numpy(tensors, where)
    return Taken(arrays, where, notes, source, _origin(file, chosen.key))


def _anything(file: torch_files.TorchFile) -> Taken:
    """Returns any tensors, so that the converter's error says what they lack."""
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
    """Chooses one of `wanted`; returns it, notes, and entries for `model.json`."""
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
        note += f"the file also has {words[other]} ones: {_labels(others)}"
        note += f" (--weights={other})"
    else:
        note += f"the file has no {words[other]} ones"
    left = [network.label for network in others]
    return chosen, [note], {"weights": kind, "taken": chosen.label, "left": left}


def _labels(networks: list[_Network]) -> str:
    return listed([repr(network.label) for network in networks])


def _is_averaged(file: torch_files.TorchFile, network: _Network) -> bool:
    # Lightning's WeightAveraging stores the averaged weights in place of the raw ones.
    if network.key == ("state_dict",) and ("current_model_state",) in file.states:
        return True
    if any(re.fullmatch(_AVERAGED, part) for part in network.label.split(".")):
        return True
    parents = {re.sub(r"module\.$", "", network.prefix), network.prefix}
    state = file.states[network.key]
    return any(f"{parent}n_averaged" in state for parent in parents)


def _distinct(states: Mapping, networks: list[_Network]) -> list[_Network]:
    """Drops networks that share all tensors with another, under a second name."""
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
    """Returns a tensor's data pointer, or a unique number if it has no data."""
    try:
        return tensor.data_ptr() or id(tensor)
    except RuntimeError:
        return id(tensor)


def _left_out(names: list[str], prefix: str) -> list[str]:
    """Returns notes on the tensors outside the prefix, grouped by their parts."""
    names = [name for name in names if not re.search(UNUSED, name)]
    if not names:
        return []
    counts = collections.Counter(_part(name, prefix) for name in names)
    alone = set(names)
    parts = [k if k in alone else f"{k}.* ({n})" for k, n in counts.items()]
    notes = [f"left out {len(names)} tensors outside of it: {listed(parts, 8)}"]
    if any(re.search(_DENSE, name) for name in names):
        notes.append(
            "the file does not say whether the backbone is dilated, as in segmenters; "
            "assuming that it is not"
        )
    return notes


def _part(name: str, prefix: str) -> str:
    """Returns the name up to where it departs from the prefix."""
    parts, others = name.split("."), prefix.split(".")
    same = 0
    while same < len(parts) - 1 and parts[same] == others[same]:
        same += 1
    return ".".join(parts[: same + 1])


def _origin(file: torch_files.TorchFile, key: torch_files.Key) -> str:
    keys = "".join(f"[{printable(name)!r}]" for name in key)
    return f"{file.path.name}{keys}, sha256 {file.sha256}"
