"""Measuring on a noisy machine: what is compared runs in turns, and each ratio is one of neighbours in time."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple


class Took(NamedTuple):
    """Seconds of wall clock, and of processor time of this process and of the children that it waited for."""

    wall: float
    cpu: float


Action = Callable[[], Took]
"""Does the work once; its own preparation and cleaning up are not in what it answers."""


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def timed(action: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), _cpu()
    action()
    return Took(time.perf_counter() - wall, _cpu() - cpu)


def in_turns(actions: Mapping[str, Action], rounds: int, what: str) -> dict[str, list[Took]]:
    """What each action took in each round, after one round, in the order given, that does not count.

    Every round starts with another action.
    """
    names = list(actions)
    took: dict[str, list[Took]] = {name: [] for name in names}
    for number in range(-1, rounds):
        first = (number + 1) % len(names)
        for name in names[first:] + names[:first]:
            one = actions[name]()
            if number >= 0:
                took[name].append(one)
        say(f"{what}: round {number + 1} of {rounds}" if number >= 0 else f"{what}: warm-up")
    return took


def each(took: Sequence[Took], count: int) -> Spread:
    """Milliseconds of wall clock for one of `count`."""
    return Spread.of([one.wall / count * 1e3 for one in took])


def ratio(took: Sequence[Took], floor: Sequence[Took], clock: str) -> Spread:
    """Round by round; `clock` is wall or cpu."""
    return Spread.of([getattr(mine, clock) / getattr(least, clock) for mine, least in zip(took, floor, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@contextmanager
def cores(count: int | None) -> Iterator[None]:
    """Runs this process, and the children it starts meanwhile, on `count` cores; None leaves it as it is."""
    before = os.sched_getaffinity(0)
    if count is not None:
        os.sched_setaffinity(0, set(sorted(before)[-count:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "pydicom", "cryptography", "coincurve", "sqlalchemy")},
    }


def say(what: str) -> None:
    """Progress, on stderr."""
    print(what, file=sys.stderr, flush=True)


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    hashing = "with" if "sha_ni" in fields.get("flags", "").split() else "without"
    return f"{fields.get('model name', 'unknown')}, {hashing} SHA instructions"
