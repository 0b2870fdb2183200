"""The files of docs/deploy: their flags exist, and they start again what they say."""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest
import yaml

from jdissect import __main__ as commands
from jdissect import launch
from jdissect.report import run_summary
from jdissect.runtime import command_line
from jdissect.runtime.processes import ALONE

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "deploy"
SLURM = FOLDER / "slurm.sh"


@pytest.fixture
def jobset():
    return yaml.safe_load((FOLDER / "jobset.yaml").read_text())


def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert re.fullmatch(r"[a-z][a-z0-9-]*", replicated["name"])
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


def container(jobset):
    (found,) = job(jobset)["template"]["spec"]["containers"]
    return found


def test_jobset_has_the_fields_of_its_api(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    assert jobset["metadata"]["name"] == "jdissect"
    assert set(jobset["spec"]) == {"network", "failurePolicy", "replicatedJobs"}
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert policy["restartStrategy"] in ("Recreate", "BlockingRecreate")
    (rule,) = policy["rules"]
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_a_lost_pod_starts_all_again_and_an_error_does_not(jobset):
    spec = job(jobset)
    assert spec["completionMode"] == "Indexed" and spec["backoffLimit"] == 0
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": container(jobset)["name"],
        "operator": "In",
        "values": [1, 2],  # neither 3 nor 143
    }
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_one_pod_for_each_host_of_the_slice(jobset):
    spec = job(jobset)
    selector = spec["template"]["spec"]["nodeSelector"]
    rows, columns = map(int, selector["cloud.google.com/gke-tpu-topology"].split("x"))
    resources = container(jobset)["resources"]
    assert resources["requests"] == resources["limits"]
    chips = resources["limits"]["google.com/tpu"]
    assert spec["parallelism"] == spec["completions"] == rows * columns // chips
    mounts = {one["name"] for one in container(jobset)["volumeMounts"]}
    assert mounts == {one["name"] for one in spec["template"]["spec"]["volumes"]}


def srun():
    """The command that slurm.sh gives to srun."""
    text = SLURM.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^srun (.*) &$", text, re.MULTILINE)
    return shlex.split(line)


def started(argv, monkeypatch):
    """(config, workdir) of a command line of `jdissect.launch`, which would run it."""
    assert argv[0].endswith("python") and argv[1:3] == ["-m", "jdissect.launch"]
    values, arguments = launch._parse(argv[2:])
    assert int(values.start_timeout) > 60
    assert arguments[:3] == ["-m", "jdissect", "dissect"]
    found = []
    monkeypatch.setattr(command_line, "join", lambda flags: ALONE)
    monkeypatch.setattr(run_summary, "dissect", lambda *given: found.append(given) or 0)
    arguments.append(f"--start_timeout={values.start_timeout}")
    assert commands.main(["jdissect", *arguments[2:]]) == 0
    (config, workdir, overwrite, _) = found[0]
    assert not overwrite and config.data.name == "imagenet2012"
    return config, workdir


def test_the_commands_are_understood(jobset, monkeypatch):
    config, workdir = started(container(jobset)["command"], monkeypatch)
    assert workdir.startswith("gs://BUCKET/") and config.dtype == "bfloat16"
    mounts = {one["mountPath"] for one in container(jobset)["volumeMounts"]}
    assert config.cache.dir in mounts
    _, workdir = started(srun(), monkeypatch)
    assert workdir.startswith("/shared/")


def test_slurm_is_asked_for_a_warning():
    text = SLURM.read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", text, re.MULTILINE))
    assert {"requeue", "nodes", "time"} <= set(asked)
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert re.fullmatch(r"B:USR1@\d+", asked["signal"])
    subprocess.run(["bash", "-n", SLURM], check=True)


@pytest.fixture
def batch(tmp_path):
    """Starts slurm.sh where srun ends with a code, or waits for SIGTERM."""
    for name, lines in {
        "srun": """[ -n "$CODE" ] && exit "$CODE"
trap 'exit 143' TERM
echo $$ > "$READY.new"; mv "$READY.new" "$READY"
while :; do sleep 0.05; done""",
        "scontrol": 'echo "$@" >> "$ASKED"',
        "scancel": '[ "$*" = "--signal=TERM 7" ] && kill -TERM "$(cat "$READY")"',
    }.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{lines}\n")
        path.chmod(0o755)
    processes = []

    def start(**environment):
        processes.append(
            subprocess.Popen(
                ["bash", SLURM],
                env={
                    "PATH": f"{tmp_path}:{os.environ['PATH']}",
                    "READY": str(tmp_path / "ready"),
                    "ASKED": str(tmp_path / "asked"),
                    "SLURM_JOB_ID": "7",
                    **environment,
                },
                start_new_session=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def asked(tmp_path):
    path = tmp_path / "asked"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [
        (0, 0, False),
        (1, 0, False),
        (2, 0, False),
        (3, 0, True),
        (3, 19, True),
        (3, 20, False),
        (137, 0, True),
        (143, 0, False),  # somebody else has sent it
    ],
)
def test_what_slurm_starts_again(batch, tmp_path, code, restarts, again):
    process = batch(CODE=str(code), SLURM_RESTART_COUNT=str(restarts))
    assert process.wait(60) == code
    assert asked(tmp_path) == "requeue 7\n" * again


@pytest.mark.parametrize(
    ("number", "code", "again"),
    [
        (signal.SIGUSR1, 143, True),  # the time limit is near
        (signal.SIGTERM, -signal.SIGTERM, False),  # scancel
    ],
)
def test_a_warning_saves_and_requeues(batch, tmp_path, number, code, again):
    process = batch(CODE="")
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end, "srun has not begun"
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == code
    assert asked(tmp_path) == "requeue 7\n" * again
