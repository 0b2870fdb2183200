import json
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch absent: converters need it")


@pytest.fixture(scope="session")
def draw_state():
    """A function that gives a twin's state dict values that all matter."""

    def draw(twin, seed=0):
        rng = np.random.default_rng(seed)
        state = {}
        for name, tensor in twin.state_dict().items():
            shape = tuple(tensor.shape)
            if name.endswith("num_batches_tracked"):
                state[name] = tensor
                continue
            if name.endswith("running_var") or (len(shape) == 1 and "weight" in name):
                values = rng.uniform(0.5, 1.5, shape)
            elif len(shape) == 1:
                values = rng.normal(0, 0.2, shape)
            else:
                values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
            state[name] = torch.tensor(values, dtype=torch.float32)
        return state

    return draw


@pytest.fixture
def small_resnet(draw_state):
    """The state dict of a ResNet-18 of width 4 with 5 classes."""
    from jdissect.converters.twins.resnet import ResNet

    return draw_state(ResNet(18, width=4, classes=5))


@pytest.fixture
def publish(tmp_path, draw_state):
    """Draws a twin's weights and writes the files that are published of it."""

    def run(twin, labels=None, epoch=3, legacy=False, **changes):
        state = draw_state(twin)
        twin.load_state_dict(state)
        folder = tmp_path / "published"
        folder.mkdir(exist_ok=True)
        for part in ("encoder", "decoder"):
            tensors = {
                name.removeprefix(f"{part}."): tensor
                for name, tensor in state.items()
                if name.startswith(f"{part}.")
            }
            changes.get(part, lambda _: None)(tensors)
            torch.save(
                tensors,
                folder / f"{part}_epoch_{epoch}.pth",
                _use_new_zipfile_serialization=not legacy,
            )
        if labels is not None:
            (folder / "labels.json").write_text(json.dumps(labels))
        return folder

    return run


@pytest.fixture
def convert(tmp_path, capsys):
    """Runs a converter on an object saved by PyTorch, or on a file.

    Returns code, lines on stdout and stderr, and the output folder, which is checked
    to be absent where the converter failed.
    """

    def run(converter, content, *flags, legacy=False, output=None):
        path = content
        if isinstance(content, dict | list):
            path = tmp_path / "weights.pth"
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        folder = tmp_path / "out" / "converted" if output is None else output
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        code = converter.main(
            ["convert", f"--checkpoint={path}", f"--output={folder}", *flags]
        )
        captured = capsys.readouterr()
        if code:
            assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
            assert 1 <= len(captured.err.splitlines()) <= 2
        return types.SimpleNamespace(
            code=code, out=captured.out, err=captured.err, folder=folder
        )

    return run
