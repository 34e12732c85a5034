"""Progress of preflight, for ``validate`` and for ``run`` before its cells."""

from __future__ import annotations

from robustbench_msa.cli.display import Ticker


class CheckProgress(Ticker):
    """Progress over models to be checked. It is gone with the last one: a bar of cells may follow."""

    def __enter__(self) -> CheckProgress:
        return self

    def checked(self, name: str, models: int) -> None:
        if not self.total:
            self.begin(models, "checking")
        if self.bar is not None or self.done + 1 < models:  # off a terminal, that it is done will be seen anyway
            self.tick(f"checked {name}")
        if self.bar is not None and self.done == models:
            self.bar.stop()
