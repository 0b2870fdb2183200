"""Hostile values of every key, to every command that takes a config."""

import numpy as np
import pytest

from jdissect import (
    ablate,
    evaluate,
    main,
    probe,
    segment,
    study,
    train,
    train_segmenter,
)
from jdissect.base.errors import UserError
from jdissect.configs import efficientnet_lite0, mixup, segmenter
from jdissect.runtime import command_line, config_values, plain_flags

COMMANDS = {
    "main": main,
    "train": train,
    "train_segmenter": train_segmenter,
    "evaluate": evaluate,
    "ablate": ablate,
    "segment": segment,
    "probe": probe,
    "study": study,
}
MANY = "1" + "0" * 30
HOSTILE = [
    ("iou_thresholds=a,b", "is ('a,b',); it must be numbers, such as 0.03,0.04"),
    ("iou_thresholds=0.03,x", "it must be numbers"),
    ("iou_thresholds=nan", "it must be numbers"),
    ("iou_thresholds=0.03,inf", "it must be numbers"),
    ("iou_thresholds=None", "it must be numbers"),
    ("iou_thresholds=True", "it must be numbers"),
    ("iou_thresholds=(0.1,(2,3))", "it must be numbers"),
    ("iou_thresholds=1j", "it must be numbers"),
    ("train.milestones=x", "it must be numbers, such as 0."),
    ("train.milestones=0.5,-inf", "it must be numbers"),
    ("model.layers=None", "it must be names, such as layer4"),
    ("model.layers=layer4,True", ""),  # two names
    ("model.layers=('a',('b',))", "it must be names"),
    ("quantile=nan", "config.quantile is nan; it must be a finite number"),
    ("quantile=-inf", "it must be a finite number"),
    ("cache.max_gb=inf", "it must be a finite number"),
    ("cache.max_gb=1e300", "it must be at most 1000000000"),
    ("augment.alpha=nan", "config.augment.alpha is nan"),
    ("train.learning_rate=inf", "it must be a finite number"),
    ("report=5", "Non-boolean"),
    ("data.strict=maybe", "Non-boolean"),
    ("augment.one_box_per_batch=7", "Non-boolean"),
    ("data.batch_size=1e12", "data.batch_size=1e12"),
    ("data.batch_size=True", "data.batch_size=True"),
    ("data.batch_size=1000000000000", "it must be at most 65536"),
    ("segmenter.batch_size=1000000000000", "it must be at most 65536"),
    (f"data.num_images={MANY}", "it must be at most 2147483647"),
    (f"data.workers={MANY}", "it must be at most 1024"),
    (f"topk={MANY}", "it must be at most 65536"),
    ("mask_size=1000000", "config.mask_size is 1000000; it must be at most 4096"),
    (f"mesh.unit={MANY}", "it must be at most"),
    (f"checkpoint_every={MANY}", "it must be at most"),
    (f"train.seed={MANY}", "it must be at most 4294967295"),
    (f"data.seed={MANY}", "it must be at most 4294967295"),
    (f"train.epochs={MANY}", "it must be at most 1000000"),
    (f"train.batch_size={MANY}", "it must be at most"),
    (f"train.image_size={MANY}", "it must be at most 8192"),
    ("data.num_images=" + "9" * 3000, "999... (3000 characters); it must be at most"),
    ("data.num_images=" + "9" * 9000, "config.data.num_images=999"),
]


def run(capsys, command, *arguments):
    code = command_line.entry(command.main, ["command", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def nothing_is_begun(monkeypatch):
    """Good values end here, before anything is loaded or written."""

    def stop(*arguments, **options):
        raise UserError("nothing wrong with the values")

    monkeypatch.setattr(command_line, "join", stop)
    monkeypatch.setattr("jdissect.dissection.settings.check", stop)
    monkeypatch.setattr("jdissect.jobs.dissect.dissect", stop)
    monkeypatch.setattr("jdissect.ablation.run.open_dissection", stop)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_in_a_line(name, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(main.sys, "stdin", None)
    config = "segmenter" if name == "train_segmenter" else "mixup"
    arguments = [] if name == "study" else [f"--config=configs/{config}.py"]
    if name == "ablate":
        arguments.append("--units=1")
    if name == "segment":
        arguments.append(f"--output={tmp_path / 'out'}")
    for change, message in HOSTILE:
        code, out, error = run(capsys, COMMANDS[name], *arguments, f"--config.{change}")
        assert code == 2 and error.startswith("error: "), (change, error)
        assert error.count("\n") == 1 and len(error) < 600, (change, error)
        expected = message or "nothing wrong with the values"
        assert expected in error, (change, error)
        assert not out
    for good in ("iou_thresholds=0.1,0.2", "train.milestones=1,2", "cache.max_gb=1"):
        _, _, error = run(capsys, COMMANDS[name], *arguments, f"--config.{good}")
        assert "nothing wrong with the values" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", [mixup, efficientnet_lite0, segmenter])
def test_every_key_of_every_config(file):
    """Also of a config file, which is a program of the user's."""
    defaults = file.get_config()
    config_values.check(defaults, file.get_config())
    assert defaults == file.get_config()
    for key, value in config_values.leaves(defaults):
        wrong = [object(), {1}, b"x"]
        if isinstance(value, bool):
            wrong += [2, "yes", float("nan")]
        elif isinstance(value, str):
            wrong += [1, True, None, "a\0b"]
        elif isinstance(value, int):
            wrong += ["1", True, 1.5, None, float("nan"), 10**30]
        elif isinstance(value, float):
            wrong += ["1", None, float("nan"), float("inf"), -float("inf")]
        elif isinstance(value, tuple):
            wrong += [
                "ab",
                1,
                None,
                (None,),
                (True,),
                (b"x",),
                ((1,),),
                (float("inf"),),
            ]
        *path, last = key.split(".")
        for each in wrong:
            config = file.get_config().unlock()
            place = config
            for part in path:
                place = place[part]
            with place.ignore_type():
                place[last] = each
            known = key in config_values._EXAMPLES or key in config_values._MOST
            with pytest.raises(UserError, match=f"^config.{key} is .*; it must be "):
                # A file's own value is no default to go by, where the key is known.
                config_values.check(config, config if known else defaults)
                raise AssertionError(f"{key} may be {each!r}")


def test_what_a_tuple_means():
    config = mixup.get_config()
    with config.ignore_type():
        config.model.layers = ("a,b", 3, "c", "")
        config.iou_thresholds = ("0.1, 0.2", np.float64(0.5), 0)
    config_values.check(config, mixup.get_config())
    assert config.model.layers == ("a", "b", "3", "c")
    assert config.iou_thresholds == (0.1, 0.2, 0.5, 0)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("layer4.0,layer4.1", ("layer4.0", "layer4.1")),
        ("conv1, layer4.0,layer4", ("conv1", "layer4.0", "layer4")),
        ("layer4.0", ("layer4.0",)),
        ("it's,a.0", ("it's", "a.0")),
        ("('layer4.0', 'b')", ("layer4.0", "b")),
        ("a,b", ("a", "b")),
    ],
)
def test_names_of_layers_need_no_quotes(text, layers):
    """ml_collections reads a tuple as Python, which layer4.0 is not."""
    flag = "--config.model.layers"
    for argument in ([f"{flag}={text}"], [flag, text]):
        argv = ["main", "--config=configs/mixup.py", *argument]
        flags = command_line.define(argv, {}, {})
        assert command_line.parse(flags, argv).model.layers == layers


@pytest.mark.parametrize(
    ("flag", "proposed"),
    [
        ("--foo", None),
        ("--layers=x", None),
        ("--overwrit", "overwrite"),
        ("--wrkdir=x", "workdir"),
        ("--num_process=2", "num_processes"),
    ],
)
def test_only_a_flag_that_is_near_is_proposed(flag, proposed, capsys):
    _, _, error = run(capsys, main, "--config=configs/mixup.py", flag)
    name = flag.lstrip("-").partition("=")[0]
    hint = f"did you mean --{proposed}?" if proposed else "see --help"
    assert error == f"error: Unknown command line flag '{name}'; {hint}\n"


def test_all_kinds_of_commands_propose_their_own():
    from absl import flags

    from jdissect import compare, launch
    from jdissect.converters import command

    for parse in (
        lambda: compare.main(["compare", "--outptu=x"]),
        lambda: plain_flags.parse(["x", "--outptu=x"], "", {"output": ("", "")}),
    ):
        with pytest.raises(UserError, match="'outptu'; did you mean --output"):
            parse()
    with pytest.raises(UserError, match="'log_dri'; did you mean --log_dir"):
        launch.main(["launch", "--log_dri=x", "--", "x"])
    values = flags.FlagValues()
    flags.DEFINE_string("checkpoint", "", "", flag_values=values)
    with pytest.raises(UserError, match="'chekpoint'; did you mean --checkpoint"):
        command._parse(values, ["x", "--chekpoint=1"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "(Unable to allocate 9 TiB)"),
        (MemoryError(), "error: out of memory; use smaller batches"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9\nbytes"), "out of memory (9 bytes)"),
    ],
)
def test_out_of_memory(error, said, capsys):
    def fail(argv):
        raise error

    assert command_line.entry(fail, []) == 2
    text = capsys.readouterr().err
    assert said in text and "config.data.batch_size" in text and text.count("\n") == 1


def test_numbers_of_processes(capsys, monkeypatch):
    monkeypatch.undo()
    for flag in ("num_processes", "start_timeout", "heartbeat_timeout"):
        for value in ("0", "x", MANY):
            arguments = ["--config=configs/mixup.py", f"--{flag}={value}"]
            code, _, error = run(capsys, main, *arguments)
            assert code == 2 and f"--{flag} is '{value}'" in error
            assert "from 1 to 1000000" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        ("blocks.3,blocks.11.mlp.act", ("blocks.3", "blocks.11.mlp.act")),
        ("features.1.10", ("features.1.10",)),
        ("1.10", ("1.10",)),
        ("0,3", ("0", "3")),
        ("('layer1','layer2.0')", ("layer1", "layer2.0")),
    ],
)
def test_dotted_names_of_layers(given, layers):
    """PyTorch's names; 1.10 is no number."""
    argv = ["main", "--config=mixup", f"--config.model.layers={given}"]
    values = command_line.define(argv, {}, {})
    assert command_line.parse(values, argv).model.layers == layers
