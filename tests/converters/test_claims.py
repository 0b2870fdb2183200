"""Files that claim more than they have, and files of other times."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.converters import resnet, torch_claims

HUGE = 10**13


def rewritten(path, change):
    """The archive at `path` with another data.pkl."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            if name.endswith("data.pkl"):
                content = change(content)
            archive.writestr(name, content)


def number(value):
    """A pickled int."""
    return pickle.dumps(value, protocol=2)[2:-1]


def claims_more(state, path, legacy):
    """`fc.bias`, of 7 numbers, is said to have HUGE."""
    state["fc.bias"] = torch.arange(7.0)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)

    def change(pickled):
        parts = pickled.split(b"fc.bias")
        assert len(parts) == 2
        return parts[0] + b"fc.bias" + parts[1].replace(number(7), number(HUGE))

    if legacy:
        path.write_bytes(change(path.read_bytes()))
    else:
        rewritten(path, change)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_size_that_no_memory_holds(legacy, small_resnet, tmp_path, convert):
    path = tmp_path / "weights.pth"
    claims_more(small_resnet, path, legacy)
    done = convert(resnet, path)
    assert done.code == 2
    assert (
        f"checkpoint {path} is damaged: fc.bias claims {4 * HUGE:,} bytes" in done.err
    )
    assert f"the whole file has {path.stat().st_size:,}" in done.err


@pytest.mark.parametrize("legacy", [False, True])
def test_numbers_that_repeat_without_end(legacy, small_resnet, convert):
    small_resnet["fc.weight"] = torch.zeros(1).expand(HUGE, 32)
    done = convert(resnet, small_resnet, legacy=legacy)
    assert done.code == 2
    words = f"fc.weight [{HUGE}, 32] claims {32 * HUGE:,} numbers, but has 1"
    assert words in done.err


def test_tensors_that_reach_beyond_their_storage(small_resnet, tmp_path, convert):
    path = tmp_path / "weights.pth"
    small_resnet["fc.bias"] = torch.arange(300.0)[:201]
    torch.save(small_resnet, path)
    rewritten(path, lambda pickled: pickled.replace(number(201), number(301)))
    done = convert(resnet, path)
    assert "fc.bias [301] claims 301 numbers, but has 300" in done.err


class Calls:
    """Pickled, a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [bytearray, torch.FloatTensor])
def test_objects_made_of_a_size(function, small_resnet, convert):
    content = {"state_dict": small_resnet, "more": Calls(function, HUGE)}
    done = convert(resnet, content)
    assert done.code == 2
    assert f"claims {HUGE:,} bytes" in done.err


def test_archives_that_unpack(small_resnet, tmp_path, convert):
    path = tmp_path / "weights.pth"
    torch.save(small_resnet, path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    done = convert(resnet, path)
    assert done.code == 2
    assert "save it again with torch.save" in done.err


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.empty(5, device="meta"), "fc.bias has a shape but no data"),
        (torch.zeros(5).to(torch.float8_e4m3fn), "fc.bias is of type torch.float8"),
        (torch.zeros(5).to_sparse(), "fc.bias is sparse or quantized"),
        (torch.zeros(5, dtype=torch.complex64), "fc.bias that are not floating-point"),
    ],
)
def test_tensors_without_data_or_numbers(tensor, words, small_resnet, convert):
    done = convert(resnet, small_resnet | {"fc.bias": tensor})
    assert done.code == 2
    assert words in done.err


def test_names_that_steer_a_terminal(small_resnet, convert):
    names = {f"\x1b[2J\n{n}\u202e": torch.ones(1) for n in range(9)}
    done = convert(resnet, small_resnet | names)
    assert done.code == 2
    assert "\\x1b[2J\\n0\\u202e" in done.err
    assert "and 4 more" in done.err
    assert not set("\x1b\u202e") & set(done.err)
    done = convert(resnet, small_resnet | names, "--ignore=2J")
    assert done.code == 0
    assert not set("\x1b\u202e") & set(done.out)
    assert sum("2J" in line for line in done.out.splitlines()) == 1


def test_checking_is_not_reading(small_resnet, tmp_path):
    """What a pickle calls is neither imported nor called."""
    content = {"state_dict": small_resnet, "more": Calls(exec, "raise SystemExit")}
    torch.save(content, tmp_path / "file.pth")
    torch_claims.check(tmp_path / "file.pth")
    path = tmp_path / "empty.pth"
    path.write_bytes(pickle.dumps(Calls(bytearray, HUGE), protocol=2))
    with pytest.raises(UserError, match="a bytearray claims"):
        torch_claims.check(path)


class Python2(pickle._Pickler):
    """Pickles as Python 2 with PyTorch 0.4 did: strings are bytes, dicts are lists."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        data = text.encode("latin1")
        assert len(data) < 256
        self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_str

    def save_ordered(self, items):
        pairs = [[name, value] for name, value in items.items()]
        self.save_reduce(OrderedDict, (pairs,), obj=items)

    dispatch[OrderedDict] = save_ordered

    def persistent_id(self, value):
        if not isinstance(value, torch.storage.TypedStorage):
            return None
        key = str(value._cdata)
        self.storages[key] = value
        return ("storage", torch.FloatStorage, key, "cuda:0", value._size(), None)


def python2(state):
    """The bytes of a file that Python 2 saved."""
    file, storages = io.BytesIO(), {}
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    for content in (torch_claims._MAGIC, 1001, machine, state):
        pickler = Python2(file, protocol=2)
        pickler.storages = storages
        pickler.dump(content)
    Python2(file, protocol=2).dump(sorted(storages))
    for key in sorted(storages):
        array = np.frombuffer(bytes(storages[key]._untyped_storage), np.float32)
        file.write(struct.pack("<q", array.size) + array.tobytes())
    return file.getvalue()


def test_files_of_python_2(small_resnet, tmp_path, convert):
    expected = convert(resnet, small_resnet)
    digest = networks.read_description(expected.folder)["weights_sha256"]
    state = OrderedDict(
        (f"module.{name}", tensor)
        for name, tensor in small_resnet.items()
        if tensor.is_floating_point()
    )
    content = {"state_dict": state, "arch": "resnet18", "by": "Ren\xe9"}
    content["best"] = np.float64(22.5)
    path = tmp_path / "python2.pth.tar"
    path.write_bytes(python2(content))
    assert pickle.SHORT_BINSTRING + b"\x04Ren\xe9" in path.read_bytes()
    done = convert(resnet, path, "--overwrite")
    assert done.code == 0, done.err
    assert networks.read_description(done.folder)["weights_sha256"] == digest
