"""What makes two runs the same."""

import platform
import subprocess
import sys

import jax
import pytest

from jdissect.base import identity

PROGRAM = '''"""What it does."""

# How.
LIMIT = 3


class Counter:
    """Counts."""

    def add(self, number: int = 1) -> int:
        """Adds."""
        return self.total + number  # at most LIMIT
'''


def test_what_does_not_compute_is_not_code():
    other = PROGRAM.replace("What it does", "Another").replace("# How.\n", "")
    other = other.replace('        """Adds."""\n', "").replace("  # at most LIMIT", "")
    other = other.replace("number: int = 1", "\n        number: float = 1,\n    ")
    other = other.replace(" -> int:", ":")
    assert other != PROGRAM
    assert identity.code(other) == identity.code(PROGRAM)


@pytest.mark.parametrize(
    "old, new",
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("self.total + number", "self.total - number"),
        ("int = 1", "int = 2"),
        ("class Counter", "class Adder"),
        ("return self.total", "return None and self.total"),
    ],
)
def test_what_computes_is_code(old, new):
    assert identity.code(PROGRAM.replace(old, new)) != identity.code(PROGRAM)


def test_a_docstring_alone_is_a_body():
    assert identity.code('def f():\n    """Text."""') != identity.code("f = 1")
    found = identity.code('def f():\n    """Text."""\n    return 1')
    assert found == identity.code("def f():\n    return 1")


def test_names_must_exist():
    with pytest.raises(ModuleNotFoundError, match="no module or folder 'ops/swep'"):
        identity.source_hash(("ops", "ops/swep"))
    everything = identity.source_hash((".",))
    assert everything != identity.source_hash() != identity.source_hash(("ops",))


def test_compiler_options(monkeypatch):
    jax.devices()  # XLA has read its flags
    monkeypatch.setenv(
        "XLA_FLAGS",
        "--xla_force_host_platform_device_count=4 --xla_dump_to=/tmp "
        "--xla_cpu_max_isa=AVX2 --xla_backend_optimization_level=2",
    )
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "")
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)
    found = identity.computing()["compiler options"]
    assert found == [
        "XLA_FLAGS --xla_backend_optimization_level=2",
        "XLA_FLAGS --xla_cpu_max_isa=AVX2",
    ]
    with jax.default_matmul_precision("float32"):
        assert identity.computing()["matmul precision"] == "float32"


def test_the_instructions_of_a_cpu():
    words = identity.computing()["device"].split()
    assert words[0] == platform.machine()
    if platform.machine() == "x86_64" and sys.platform == "linux":
        assert {"avx", "sse4_1"} & set(words)


def test_the_same_on_every_start():
    program = "from jdissect.base import identity as i; print(i.source_hash())"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == identity.source_hash()
