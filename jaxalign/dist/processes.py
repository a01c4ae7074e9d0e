"""Several processes that run one program, on JAX's multi-controller runtime.

Every process executes the same steps on global arrays. Records, figures and tables leave through the first alone. With
a single process every function here does the obvious thing at no cost.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxalign.core.errors import UserError

HEARTBEAT_SECONDS = 20  # a process that is silent for so long is taken for dead, and the others end
_ANSWER_BYTES = 4096


def start(setting: str) -> None:
    """Joins the other processes. Call before any device is touched.

    Args:
        setting: ``"off"`` (one process), ``"auto"`` (Slurm, Cloud TPU, GKE and Open MPI tell JAX who takes part), or
            ``"coordinator=HOST:PORT,process=I,of=N"`` with I from 0 to N - 1.

    Raises:
        UserError: another setting, or the processes do not find each other.
    """
    arguments = parse(setting)
    if arguments is None or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed {setting}: the processes did not come together ({str(error).splitlines()[0]}); start every "
            "process with the same coordinator and number, or give coordinator=HOST:PORT,process=I,of=N."
        ) from None


def parse(setting: str) -> dict[str, Any] | None:
    """Arguments of ``jax.distributed.initialize``; None if there is one process.

    Raises:
        UserError: a setting that makes no sense.
    """
    if setting in ("off", "auto"):
        return None if setting == "off" else {}
    parts: dict[str, str] = {name: value for name, _, value in (part.partition("=") for part in setting.split(","))}
    numbers = parts.get("process", ""), parts.get("of", "")
    host, _, port = parts.get("coordinator", "").rpartition(":")
    if parts.keys() != {"coordinator", "process", "of"} or not all(n.isdigit() for n in (*numbers, port)) or not host:
        raise UserError(
            f"--distributed {setting} is not understood; choose auto, off or coordinator=HOST:PORT,process=I,of=N."
        )
    process, number = map(int, numbers)
    if process >= number:
        raise UserError(f"--distributed {setting}: process {process} of {number} does not exist; count from 0.")
    return {"coordinator_address": f"{host}:{port}", "process_id": process, "num_processes": number}


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def from_first(fun: Callable[[], str]) -> str:
    """What `fun` returns in the first process, which alone calls it; all raise the UserError that it raises."""
    if jax.process_count() == 1:
        return fun()
    answer, failed = "", False
    if is_first():
        try:
            answer = fun()
        except UserError as error:
            answer, failed = str(error), True
    text = answer.encode()[: _ANSWER_BYTES - 1]
    sent = np.zeros(_ANSWER_BYTES, np.uint8)
    sent[0], sent[1 : 1 + len(text)] = failed, np.frombuffer(text, np.uint8)
    heard = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
    answer = heard[1:].tobytes().rstrip(b"\0").decode(errors="ignore")
    if heard[0]:
        raise UserError(answer)
    return answer


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Of each flag, whether it holds in any process. All must ask; all get the same answer."""
    if jax.process_count() == 1:
        return flags
    everywhere = np.asarray(multihost_utils.process_allgather(np.array(flags))).reshape(-1, len(flags))
    return tuple(bool(column.any()) for column in everywhere.T)
