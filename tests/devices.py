"""How a process that a test starts is given so many devices."""

import os


def environment(count: int) -> dict[str, str]:
    """This process's variables, and flags that split its CPU; other flags stay."""
    flag = f"--xla_force_host_platform_device_count={count}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
