"""How much a case may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """How much a case may take: quick for a look, full for figures. device: where models run."""

    quick: bool = False
    device: str = "cpu"

    def of(self, quick: int, full: int) -> int:
        return quick if self.quick else full
