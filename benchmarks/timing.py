"""Sides that take turns, and the ratios between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from benchmarks.report import spread

Side = Callable[[], object]


class Turn(NamedTuple):
    """Seconds of one side in one round; processor: all threads of this process."""

    elapsed: float
    processor: float


class Rounds:
    """What each side took in each round. Ratios are taken within a round, so that a slow moment meets both sides."""

    def __init__(self, turns: Mapping[str, list[Turn]]) -> None:
        self.turns = turns

    def seconds(self, side: str) -> str:
        return spread([turn.elapsed for turn in self.turns[side]], " s")

    def ratios(self, over: str, under: str) -> tuple[list[float], list[float]]:
        """Elapsed and processor time of a side over those of another, round by round."""
        pairs = list(zip(self.turns[over], self.turns[under], strict=True))
        return [a.elapsed / b.elapsed for a, b in pairs], [a.processor / b.processor for a, b in pairs]


def alternate(sides: Mapping[str, Side], rounds: int) -> Rounds:
    """Time each side once a round, in an order that turns round. Warming up is the caller's."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for round_ in range(rounds):
        for name in list(sides)[:: -1 if round_ % 2 else 1]:
            turns[name].append(timed(sides[name]))
    return Rounds(turns)


def timed(side: Side) -> Turn:
    start, busy = _now()
    side()
    end, worked = _now()
    return Turn(end - start, worked - busy)


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():  # kernels run beside the program
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
