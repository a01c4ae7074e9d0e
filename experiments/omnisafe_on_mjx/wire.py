"""Worlds of another process: messages over a socket, for any Python from 3.8 on with NumPy.

A message is a letter, the length of its body (8 bytes, little endian), and the body. The server (`server.py`) holds
the worlds, the client (`RemoteWorlds`) asks:

    server: H {"num_envs", "obs_size", "action_low", "action_high", "horizon", "compile_seconds"}   once, as JSON
    client: R seed (int64, negative: none)      server: O observations, float32 [B, O]
    client: S actions, float32 [B, A]           server: T one record of `step_dtype`
    any time                                    server: E one sentence, UTF-8

The client ends the server by closing its end.
"""

import json
import socket
import struct
import subprocess
from pathlib import Path

import numpy as np

HELLO, RESET, OBS, STEP, AFTER, ERROR = b"H", b"R", b"O", b"S", b"T", b"E"
_HEAD = struct.Struct("<cQ")


class WorldsError(RuntimeError):
    """The process with the worlds reported an error or ended."""


def step_dtype(num_envs: int, obs_size: int) -> np.dtype:
    """What a step returns; rows of ``final_obs`` count only where an episode is over.

    Args:
        num_envs: ``B``.
        obs_size: ``O``.
    """
    wide, one = (num_envs, obs_size), (num_envs,)  # not num_envs: NumPy 1.x takes 1 for a scalar
    return np.dtype(
        [
            ("obs", "<f4", wide),
            ("final_obs", "<f4", wide),
            ("reward", "<f4", one),
            ("cost", "<f4", one),
            ("terminated", "?", one),
            ("truncated", "?", one),
        ]
    )


def send(sock: socket.socket, letter: bytes, body: bytes) -> None:
    """Sends one message."""
    sock.sendall(_HEAD.pack(letter, len(body)) + body)


def receive(sock: socket.socket) -> "tuple[bytes, bytearray] | None":
    """The next message (letter, body), or None if the other side has closed."""
    head = _exactly(sock, _HEAD.size)
    if head is None:
        return None
    letter, size = _HEAD.unpack(head)
    body = _exactly(sock, size)
    return None if body is None else (letter, body)


def _exactly(sock: socket.socket, size: int) -> "bytearray | None":
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = sock.recv_into(view[got:])
        if count == 0:
            return None
        got += count
    return data


class RemoteWorlds:
    """The asking side of a socket, with the numbers of the first message as attributes.

    Args:
        sock: connected to a server.
        process: the server, if it is to be waited for on closing.

    Raises:
        WorldsError: the server could not make the worlds.
    """

    def __init__(self, sock: socket.socket, process: "subprocess.Popen | None" = None):
        self._sock, self._process = sock, process
        try:
            hello = json.loads(self._expect(HELLO))
        except WorldsError:
            self.close()
            raise
        self.num_envs, self.obs_size, self.horizon = hello["num_envs"], hello["obs_size"], hello["horizon"]
        self.action_low, self.action_high = (np.array(hello[k], np.float32) for k in ("action_low", "action_high"))
        self.compile_seconds = hello["compile_seconds"]
        self._after = step_dtype(self.num_envs, self.obs_size)

    def reset(self, seed: "int | None" = None) -> np.ndarray:
        """Begins an episode in every world: the first of seeds ``seed, seed + 1, ...``, or each world's next.

        Returns:
            Observations, ``[B, O]``.

        Raises:
            WorldsError: the seed is out of range, or the server has ended.
        """
        send(self._sock, RESET, np.int64(-1 if seed is None else seed).tobytes())
        return np.frombuffer(self._expect(OBS), "<f4").reshape(self.num_envs, self.obs_size)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """One step in every world; a world whose episode ends begins its next in the same step.

        Args:
            actions: ``[B, A]``.

        Returns:
            One record of `step_dtype`.

        Raises:
            WorldsError: the actions have the wrong shape or are not finite, or the server has ended.
        """
        send(self._sock, STEP, np.ascontiguousarray(actions, "<f4").tobytes())
        return np.frombuffer(self._expect(AFTER), self._after)[0]

    def close(self) -> None:
        """Ends the server and waits for it."""
        self._sock.close()
        if self._process is not None:
            self._process.wait(timeout=30)

    def _expect(self, letter: bytes) -> bytearray:
        message = receive(self._sock)
        if message is None:
            raise WorldsError("The process with the worlds has ended; what it printed last says why.")
        if message[0] == ERROR:
            raise WorldsError(message[1].decode())
        if message[0] != letter:
            raise WorldsError(
                f"Expected message {letter!r} of the worlds, got {message[0]!r}; use one version of both."
            )
        return message[1]


def launch(python: str, env_id: str, num_envs: int, engine: "str | None" = None) -> RemoteWorlds:
    """Starts `server.py` under another Python and returns its worlds, compiled and ready.

    Args:
        python: interpreter that has ``envs_mjx`` and Gymnasium 1.x.
        env_id: one of ``envs_mjx.ids()``.
        num_envs: how many worlds.
        engine: ``"mjx"`` or ``"mujoco"``; by default the faster there.

    Raises:
        WorldsError: there is no such interpreter, or the worlds cannot be made.
    """
    ours, theirs = socket.socketpair()
    command = [python, str(Path(__file__).with_name("server.py")), env_id, str(num_envs), str(theirs.fileno())]
    try:
        process = subprocess.Popen(command + ([engine] if engine else []), pass_fds=[theirs.fileno()])
    except OSError as error:
        ours.close()
        raise WorldsError(f"Cannot start {python!r} ({error.strerror}); name the Python that has envs_mjx.") from error
    finally:
        theirs.close()
    return RemoteWorlds(ours, process)
