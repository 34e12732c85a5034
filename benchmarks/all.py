"""Every benchmark, one command; its tables go into docs/performance.md.

python benchmarks/all.py                                # prints; about 20 minutes on two idle cores
python benchmarks/all.py --quick                        # three minutes, to see that it works
python benchmarks/all.py --only overhead store
python benchmarks/all.py --out docs/performance.md      # between that page's markers (with --only: those cases alone)
python benchmarks/all.py --out figures.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import (
    against_loop,
    corruption,
    emoe_fusion,
    main_job,
    memory,
    overhead,
    qa_moe_claims,
    scaling,
    store,
)
from benchmarks.budget import Budget
from benchmarks.report import Table, write_page
from corruptions.registry import did_you_mean
from robustbench_msa.allocator import keep_freed_memory
from robustbench_msa.analysis.efficiency import machine as processor_and_device
from robustbench_msa.version import commit, versions

CASES: Mapping[str, Callable[[Budget], list[Table]]] = {
    "main_job": main_job.main_job,
    "overhead": overhead.overhead,
    "loop": against_loop.protocol,
    "whole_modality": against_loop.whole_modality,
    "emoe_fusion": emoe_fusion.emoe_fusion,
    "scaling": scaling.scaling,
    "workers": scaling.workers,
    "memory": memory.memory,
    "qa_moe_claims": qa_moe_claims.qa_moe_claims,
    "corruption": corruption.corruption,
    "store": store.store,
}


def load() -> str:
    return ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "not known"


def machine(device: str) -> dict[str, str]:
    """What figures depend on."""
    found = {name: str(value) for name, value in processor_and_device(torch.device(device)).items() if name != "load"}
    if hasattr(os, "sysconf"):
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return found | {"system": platform.platform(terse=True), **versions(), "commit": commit() or "not known"}


def machine_line(facts: Mapping[str, str]) -> str:
    device = "" if facts["device"] == "cpu" else f"{facts['device']} (CUDA {facts['cuda']}), "
    packages = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "numpy", "pyarrow"))
    cores = f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} torch threads, {facts['memory']}"
    return f"{device}{cores}; {facts['system']}; {packages}; commit {facts['commit'][:12]}"


def measured(name: str, budget: Budget, case: Callable[[Budget], list[Table]]) -> dict[str, Any]:
    """A case's tables, with when and how busy the machine was before and after (load of 1, 5, 15 minutes)."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    before, start = load(), time.perf_counter()
    tables = case(budget)
    seconds = time.perf_counter() - start
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    when = datetime.now(UTC).isoformat(timespec="minutes")
    about = {"case": name, "when": when, "load_before": before, "load_after": load(), "seconds": round(seconds, 1)}
    return {**about, "quick": budget.quick, "tables": tables}


def section(found: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """The Markdown of a case: its tables, and a line on the run that measured it."""
    size = "quick, sizes too small for figures to quote" if found["quick"] else "full"
    loads = f"load {found['load_before']} before, {found['load_after']} after"
    line = f"*{found['case']}, {size}; {found['when']}, {found['seconds']:.0f} s; {loads}. {machine_line(facts)}.*\n"
    return "\n".join([*(table.markdown() for table in found["tables"]), line])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", action="extend", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, help="a page with markers (.md) or a .json file; default: print")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where models run")
    parser.add_argument("--cells", type=int, help="how many cells the case 'store' makes")
    found = parser.parse_args()
    for name in found.only:
        if name not in CASES:
            parser.exit(2, f"benchmarks: no case {name!r}{did_you_mean(name, CASES)}; there are {', '.join(CASES)}\n")
    if found.out is not None and found.out.suffix not in (".md", ".json"):
        parser.exit(2, f"benchmarks: --out {found.out}: expected a name that ends in .md or .json\n")
    return found


def main() -> None:
    asked = arguments()
    cuda = torch.cuda.is_available()
    if asked.device == "cuda" and not cuda:
        sys.exit("benchmarks: --device cuda: this torch sees no CUDA device")
    device = "cuda" if asked.device != "cpu" and cuda else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()  # as the command line does; for both sides of every case
    budget, facts, found = Budget(asked.quick, device), machine(device), []
    cases: dict[str, Callable[[Budget], list[Table]]] = {**CASES, "store": partial(store.store, count=asked.cells)}
    for name in (name for name in CASES if name in asked.only or not asked.only):
        found.append(measured(name, budget, cases[name]))
        if asked.out is None:
            print(section(found[-1], facts), flush=True)
        elif asked.out.suffix == ".md":  # after each case, so that a run that is stopped leaves what it has
            write_page(asked.out, device, {entry["case"]: section(entry, facts) for entry in found}, tuple(CASES))
        else:
            plain = [{**entry, "tables": [table.to_json() for table in entry["tables"]]} for entry in found]
            asked.out.write_text(json.dumps({"machine": facts, "cases": plain}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
