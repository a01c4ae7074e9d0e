"""A live view of a training run on stderr."""

import math
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import SupportsFloat

from tqdm import tqdm

_TICK = 1.0  # seconds between refreshes of the bar while compiling
_PLAIN_PERIOD = 10.0  # seconds between lines where stderr is no terminal


class Progress:
    """Shows env-steps done, return, cost against its limit, multiplier, env-steps/s and the time left.

    On a terminal this is one bar, elsewhere a plain line every 10 seconds. Until the first `log` it says "compiling";
    the speed is measured from the first `log` on, so it does not count the compilation. The metrics read, where
    present and finite, are "episode_return", "episode_cost/<name>" and "multiplier/<name>".
    """

    def __init__(
        self, total_steps: int, initial: int = 0, cost_limits: Sequence[float] = (), disable: bool | None = None
    ):
        """Begin to say "compiling".

        Args:
            total_steps: env-steps at the end of the run.
            initial: env-steps already done by the run that this one resumes.
            cost_limits: limits of the cost per episode, in the order in which the metrics first name the constraints;
                they are shown only if there are as many constraints as limits.
            disable: True shows nothing; False draws the bar even where stderr is no terminal; None decides by stderr.
        """
        self._total = total_steps
        self._limits = tuple(cost_limits)
        self._begin = self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None  # env-steps and time of the first log
        self._unprinted = ""  # the latest plain line, until it is printed
        self._plain = disable is None and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=initial,
            desc="compiling",
            unit_scale=True,
            dynamic_ncols=True,
            disable=bool(disable) or self._plain,
            bar_format="{bar} {n_fmt}/{total_fmt}  {desc}",
        )
        self._started = threading.Event()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        if not disable:
            self._waiter.start()

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Show `metrics` measured after `step` env-steps."""
        self._stop_waiting()
        now = time.monotonic()
        is_first = self._first is None
        self._first = self._first or (step, now)
        status = "  ".join([*_describe(metrics, self._limits), *self._speed(step, now)])
        if self._plain:
            self._unprinted = f"{step:,}/{self._total:,} env-steps  {status}".rstrip()
            if is_first or now - self._printed >= _PLAIN_PERIOD:
                self._print(self._unprinted, now)
        else:
            self._bar.n = step
            self._bar.set_description_str(status)

    def close(self) -> None:
        """Leave the last state on the screen and stop."""
        self._stop_waiting()
        self._bar.close()
        if self._unprinted:
            self._print(self._unprinted, time.monotonic())

    def _wait(self) -> None:
        while not self._started.wait(_PLAIN_PERIOD if self._plain else _TICK):
            now = time.monotonic()
            text = f"compiling {_clock(now - self._begin)}"
            if self._plain:
                self._print(text, now)
            else:
                self._bar.set_description_str(text)

    def _stop_waiting(self) -> None:
        self._started.set()
        if self._waiter.is_alive():
            self._waiter.join()

    def _speed(self, step: int, now: float) -> list[str]:
        first_step, first_time = self._first or (step, now)
        if step <= first_step or now <= first_time:
            return []
        speed = (step - first_step) / (now - first_time)
        left = max(self._total - step, 0) / speed
        return [f"{tqdm.format_sizeof(speed)} steps/s", f"{_clock(left)} left"]

    def _print(self, text: str, now: float) -> None:
        print(text, file=sys.stderr, flush=True)
        self._printed, self._unprinted = now, ""


def _clock(seconds: float) -> str:
    return tqdm.format_interval(seconds)


def _describe(metrics: Mapping[str, SupportsFloat], limits: tuple[float, ...]) -> list[str]:
    """Say the return, then each constraint's cost, limit and multiplier; its name only if there are several."""
    parts = [f"return {metrics['episode_return']:.1f}"] if _shown(metrics, "episode_return") else []
    prefixes = ("episode_cost/", "multiplier/")
    names = list(dict.fromkeys(key.split("/", 1)[1] for key in metrics if key.startswith(prefixes)))
    of_limit = [f"/{limit:g}" for limit in limits] if len(limits) == len(names) else [""] * len(names)
    for name, limit in zip(names, of_limit, strict=True):
        label = "cost" if len(names) == 1 else name
        if _shown(metrics, f"episode_cost/{name}"):
            parts.append(f"{label} {metrics[f'episode_cost/{name}']:.1f}{limit}")
        if _shown(metrics, f"multiplier/{name}"):
            parts.append(f"lambda {metrics[f'multiplier/{name}']:.3g}")
    return parts


def _shown(metrics: Mapping[str, SupportsFloat], key: str) -> bool:
    return key in metrics and math.isfinite(metrics[key])
