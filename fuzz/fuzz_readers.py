"""Fuzz every reader of files from strangers. Anything but a result or InputError is a finding.

    python fuzz/fuzz_readers.py --minutes 10                     all readers, the time shared between them
    python fuzz/fuzz_readers.py --minutes 1 --reader npz --seed 7
    python fuzz/fuzz_readers.py --runs 20000                     by count: the same inputs on every machine

Needs atheris (pip install atheris), Linux. Findings go to --out, each with its traceback and its shortest input; the
exit code is 1 when there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STALLED = 120.0  # seconds without an execution: a loop that no signal of Python interrupts
SETTINGS = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


@dataclass
class Tally:
    """What became of one reader. accepted: inputs that it read to the end; deaths: of the whole process."""

    executions: int = 0
    accepted: int = 0
    seconds: float = 0.0
    deaths: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    sys.path[:0] = [str(HERE), str(ROOT)]
    targets = _instrumented()
    names = options.reader or list(targets)
    if unknown := set(names) - set(targets):
        raise SystemExit(f"fuzz: unknown reader {min(unknown)}; there are {', '.join(targets)}")
    options.out.mkdir(parents=True, exist_ok=True)
    shared_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="msabench-fuzz-", dir=shared_memory) as workplace:
        seeds = _seeds(Path(workplace) / "seeds")
        seconds = max(1, round(60 * options.minutes / len(names)))
        tallies = {}
        for name in names:
            tallies[name] = _fuzz(name, seeds[name], Path(workplace), options, seconds)
            _print(name, tallies[name])
    return _report(tallies, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of fuzzing in all; making seeds comes on top")
    parser.add_argument("--runs", type=int, default=0, help="executions of each reader instead of minutes")
    parser.add_argument("--reader", action="append", help="only this one; repeat for several")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="where findings go")
    return parser.parse_args()


def _instrumented() -> dict[str, Any]:
    """The targets, with all that is imported here counting its branches."""
    try:
        import atheris  # type: ignore[import-untyped]
    except ImportError:
        raise SystemExit("fuzz: needs atheris: pip install atheris") from None
    packages = ["corruptions", "robustbench_msa", "pickletools", "zipfile", "tomllib", "csv"]
    for name in packages:
        for module in [m for m in sys.modules if m.split(".")[0] == name]:
            del sys.modules[module]
    metadata: Any = importlib.metadata
    metadata.entry_points = functools.cache(metadata.entry_points)  # looks through all packages whenever it is asked
    with (
        contextlib.redirect_stderr(io.StringIO()),  # a line for each module
        atheris.instrument_imports(include=packages, enable_loader_override=False),
    ):
        import targets
    import torch

    torch.set_num_threads(1)
    return targets.TARGETS


def _seeds(path: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(HERE / "seeds.py"), str(path)], env=environment, check=True, cwd=path.parent)
    found: dict[str, Any] = pickle.loads(path.read_bytes())  # our own, made the line before
    return found


def _fuzz(name: str, seeds: Any, workplace: Path, options: argparse.Namespace, seconds: int) -> Tally:
    from worker import STATE, State, fuzz

    place, found = workplace / name, options.out.absolute() / name
    place.mkdir()
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True)
    shared, tally = mmap(-1, STATE), Tally()
    state = State(shared)
    for i, data in enumerate(seeds.files[file] for file in seeds.hostile):
        accepted, finding = _checked(name, seeds, place, bytes([i]) + data)
        if not accepted:
            raise SystemExit(f"fuzz: {name}: the valid {seeds.hostile[i]} is not read: {finding}")
    began, attempt = time.monotonic(), 0
    while (left := seconds - tally.seconds) >= 1 and (not options.runs or state.number(0) < options.runs):
        runs = options.runs - state.number(0) if options.runs else 0
        limit = 0 if options.runs else round(left)
        seed = options.seed + attempt
        child = _forked(lambda s=seed, r=runs, t=limit: fuzz(name, seeds, place, found, shared, s, t, r), place / "log")  # type: ignore[misc]
        before = state.number(0)
        death = _watched(child, state)
        tally.seconds, attempt = time.monotonic() - began, attempt + 1
        if death is None:
            break
        tally.deaths += 1
        if state.phase == 2:
            (found / f"death-{attempt}.input").write_bytes(state.input)
            (found / f"death-{attempt}.txt").write_text(f"the process {death}\n" + (place / "log").read_text()[-3000:])
        if attempt > 50 or (state.number(0) == before and state.phase != 2):
            raise SystemExit(
                f"fuzz: {name}: the process {death} before it read anything:\n{(place / 'log').read_text()[-3000:]}"
            )
    tally.executions, tally.accepted = state.number(0), state.number(1)
    tally.findings = [str(path) for path in sorted(found.glob("*.input")) if _confirmed(name, seeds, place, path)]
    if not any(found.iterdir()):
        found.rmdir()
    return tally


def _forked(work: Callable[[], object], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)
    os._exit(0)


def _watched(child: int, state: Any) -> str | None:
    """How the process died; None when it ended by itself."""
    last, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
            code = os.WEXITSTATUS(status)
            return None if code == 0 else f"ended with exit code {code}"
        if state.number(0) != last:
            last, since = state.number(0), time.monotonic()
        if time.monotonic() - since > STALLED:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"did nothing for {STALLED:g} seconds"
        time.sleep(0.05)


def _checked(name: str, seeds: Any, place: Path, data: bytes) -> tuple[bool, str]:
    """One execution in a process of its own: accepted? and the finding's name (empty: none)."""
    from worker import check

    answer = place / "answer"

    def work() -> None:
        accepted, finding = check(name, seeds, place, data)
        answer.write_text(json.dumps([accepted, finding and finding.name, finding and finding.text]))

    answer.unlink(missing_ok=True)
    child = _forked(work, place / "log")
    stop = time.monotonic() + STALLED
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > stop:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    if not answer.exists():
        return False, "death"
    accepted, found, text = json.loads(answer.read_text())
    return accepted, f"{found} {text}" if found else ""


def _confirmed(name: str, seeds: Any, place: Path, path: Path) -> bool:
    """Does it happen again in a fresh process? What does is made shorter."""
    from worker import smaller

    data, finding = path.read_bytes(), path.stem
    _, again = _checked(name, seeds, place, data)
    if not again:  # also what ends the HDF5 library, and is refused by a reader that tries it in another process
        path.rename(path.with_suffix(".once"))
        return False
    if not finding.startswith("death"):
        result = place / "smaller"
        result.unlink(missing_ok=True)
        child = _forked(lambda: result.write_bytes(smaller(name, seeds, place, data, finding, 20)), place / "log")
        os.waitpid(child, 0)
        if result.exists():
            path.write_bytes(result.read_bytes())
    return True


def _print(name: str, tally: Tally) -> None:
    rate = tally.executions / max(tally.seconds, 1e-9)
    share = tally.accepted / max(tally.executions, 1)
    found = f"  {tally.deaths} deaths" if tally.deaths else ""
    found += f"  {len(tally.findings)} FINDINGS" if tally.findings else ""
    print(
        f"{name:14} {tally.executions:9,} executions {rate:7,.0f}/s  {share:6.1%} read  {tally.seconds:5.0f} s{found}",
        flush=True,
    )


def _report(tallies: dict[str, Tally], options: argparse.Namespace) -> int:
    executions = sum(t.executions for t in tallies.values())
    findings = [path for t in tallies.values() for path in t.findings]
    seconds = sum(t.seconds for t in tallies.values())
    print(f"{executions:,} executions in {seconds / 60:.1f} minutes with seed {options.seed}, {len(findings)} findings")
    for path in findings:
        last = Path(path).with_suffix(".txt").read_text("utf-8").strip().splitlines()[-1]
        print(f"  {path}  {last[:160]}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
