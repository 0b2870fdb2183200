"""Joins a process to its multi-process run."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import jax

from jdissect.base.errors import UserError
from jdissect.runtime import native_output, shutdown
from jdissect.runtime.processes import Processes
from jdissect.runtime.shutdown import leave, lost, timer


def start(
    address: str = "",
    count: int = 0,
    index: int = -1,
    *,
    start_timeout: int = 60,
    heartbeat_timeout: int = 100,
) -> Processes:
    """Joins this process to its run; a process without a cluster runs alone.

    Args:
      address: HOST:PORT of process 0; '' lets JAX detect it (TPU pods, SLURM, GKE...).
      count: number of processes; 0 detects it.
      index: index of this process; -1 detects it.
      start_timeout: seconds to wait for the other processes.
      heartbeat_timeout: seconds of silence after which a process counts as lost.

    Raises:
      UserError: address, count and index contradict each other, or joining fails.
    """
    if count == 1:
        return Processes()
    given = (bool(address), count > 0, index >= 0)
    if any(given) and not all(given):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together; "
            "give all three, or none if the platform knows them"
        )
    if jax.distributed.is_initialized():
        return Processes(jax.process_index(), jax.process_count())
    where = "the other processes of this job"
    arguments: dict[str, Any] = {}
    if any(given):
        _check(address, count, index)
        where = f"{count} processes at {address}"
        arguments = {
            "coordinator_address": address,
            "num_processes": count,
            "process_id": index,
        }
    with _deadline(start_timeout, where):
        try:
            jax.distributed.initialize(
                **arguments,
                # `_deadline` must come first: its message is one line.
                initialization_timeout=start_timeout + 30,
                heartbeat_timeout_seconds=heartbeat_timeout,
            )
        except ValueError:
            if arguments:
                raise
            return Processes()  # not a cluster that JAX detects
        except RuntimeError as error:
            if not arguments and "before any JAX" in str(error):
                return Processes()  # a notebook, a test: JAX has started already
            reason = str(error).partition("\n")[0][:200]
            raise UserError(f"cannot join {where}: {reason}") from error
    shutdown.join()
    native_output.mute_stdout()  # Gloo prints its ranks there
    if arguments:
        return Processes(index, count)  # JAX has not chosen its devices yet
    try:
        return Processes(jax.process_index(), jax.process_count())
    except RuntimeError as error:
        # The backends exchange their devices here and wait for each other.
        if not shutdown.means_loss(error):
            raise
        lost(str(error))


def _check(address: str, count: int, index: int) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"--coordinator_address is '{address}'; it must be HOST:PORT of process 0"
        )
    if index >= count:
        raise UserError(
            f"--process_id is {index}; with --num_processes={count} it must be from 0 "
            f"to {count - 1}"
        )
    if index == 0:
        _check_free(int(port))


def _check_free(port: int) -> None:
    """Rejects a port on which JAX would crash."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise UserError(
            f"port {port} of --coordinator_address cannot be used on this machine "
            f"({os.strerror(error.errno or 0)}); give another one to all processes"
        ) from error


@contextlib.contextmanager
def _deadline(seconds: int, where: str) -> Iterator[None]:
    """Ends the process with one line if the block takes longer."""

    def end():
        print(
            f"error: no connection to {where} within {seconds} s; check that all "
            "processes are started and can reach it (--start_timeout waits longer)",
            file=sys.stderr,
        )
        leave(2)

    with timer(seconds, end):
        yield
