"""Runs a `jaxalign` command as several processes on this machine, as a cluster would: to find mistakes early.

    python tpu/local_multiprocess.py --processes 2 --devices 4 -- train --steps 100000 --name try
    python tpu/local_multiprocess.py --processes 2 --devices 4 --script tpu/smoke.py

The output of process i goes to `process<i>.log` in the folder `--logs`; that of the first is shown. If one process ends
badly, the others are stopped.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Command line; the exit status is the first that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=4, help="CPU devices of each process")
    parser.add_argument("--script", help="a Python file to run instead of jaxalign")
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    parser.add_argument("arguments", nargs="*", help="of jaxalign or the script, after --")
    args = parser.parse_args()
    if args.processes < 1 or args.devices < 1:
        parser.error("--processes and --devices must be 1 or more")
    args.logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *([args.script] if args.script else ["-m", "jaxalign"]), *args.arguments]
    port = _free_port()
    running = []
    for process in range(args.processes):
        setting = f"coordinator=127.0.0.1:{port},process={process},of={args.processes}"
        env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(args.devices)}
        log = None if process == 0 else (args.logs / f"process{process}.log").open("w")
        more = [] if args.processes == 1 else ["--distributed", setting]
        running.append(
            subprocess.Popen([*command, *more], env=env, stdout=log, stderr=subprocess.STDOUT if log else None)
        )
    return _wait(running)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(running: list[subprocess.Popen]) -> int:
    try:
        while any(process.poll() is None for process in running):
            if bad := [process.returncode for process in running if process.returncode]:
                time.sleep(30)  # JAX ends the others itself, with a message
                return bad[0]
            time.sleep(0.2)
        return next((process.returncode for process in running if process.returncode), 0)
    finally:
        for process in running:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
