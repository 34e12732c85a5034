"""One target in one process: libFuzzer chooses and changes inputs by coverage, each is read under the rules.

The rules: a result or InputError; processor time and memory within bounds; no file written, nothing opened, and no
program, socket or pickle asked for outside the input's own folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import mutate
from seeds import Seeds
from targets import TARGETS, WRITERS

from corruptions import InputError
from robustbench_msa.data import entries

SECONDS = 10  # of processor time for one input
MEMORY = 512 * 2**20  # beyond what the process has before it begins
MAX_INPUT = 2**16
STATE = 64 + 2 * MAX_INPUT  # executions, accepted, phase, length of the input, the input
IDLE, CHANGING, READING = range(3)
ROOT = Path(__file__).resolve().parents[1]

_WRITES = frozenset(
    ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
)
_PROGRAMS = frozenset(
    ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect",
     "socket.bind", "pickle.find_class", "ctypes.dlopen")
)  # fmt: skip
_READABLE = tuple(
    {*filter(None, sys.path), sys.prefix, sys.base_prefix, str(ROOT), "/proc", "/dev", "/sys", "/usr", "/etc/localtime"}
)


class TooSlow(BaseException):
    """BaseException, so that no reader takes it for an error of its file."""


class Forbidden(BaseException):
    pass


@dataclass(frozen=True)
class Finding:
    """kind: the class of the error; place: where it was raised; text: the traceback."""

    kind: str
    place: str
    text: str

    @property
    def name(self) -> str:
        return hashlib.sha256(f"{self.kind} {self.place}".encode()).hexdigest()[:12]


class Bench:
    """The folder of a target's input, and one execution in it."""

    def __init__(self, target: str, seeds: Seeds, workplace: Path) -> None:
        self.read, self.seeds, self.writes = TARGETS[target], seeds, target in WRITERS
        self.changed = seeds.hostile[0]
        self.apart = False  # may a process be started to try the file?
        self.folder, self.outside = workplace / "input", workplace / "outside"
        self.armed = False
        self.outside.mkdir(parents=True, exist_ok=True)
        os.chdir(self.outside)
        self.prepare(self.corpus()[0])
        self.read(self.folder)  # what is imported only now is nothing that a file asked for
        sys.addaudithook(self.watch)
        signal.signal(signal.SIGPROF, self._too_slow)

    def run(self, data: bytes) -> tuple[bool, Finding | None]:
        """Was the input accepted? What rule did it break?"""
        self.prepare(data)
        try:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            self.armed = True
            self.read(self.folder)
            accepted, error = True, None
        except InputError as refusal:
            accepted, error = False, self._memory(refusal)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as other:
            accepted, error = False, other
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if error is None and (left := os.listdir(self.outside)):
            error = Forbidden(f"wrote {left[:3]} into the folder it was started in")
            for name in left:
                (self.outside / name).unlink()
        return accepted, None if error is None else finding_of(error)

    def prepare(self, data: bytes) -> None:
        """The valid input with one file in the place of its own. What stands there already is left."""
        name, content = self.split(data)
        if self.writes or not self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
            for file, held in self.seeds.files.items():
                self._write(file, held)
        elif self.changed != name:
            self._write(self.changed, self.seeds.files[self.changed])
        self._write(name, content)
        self.changed = name

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # the old one may still be mapped into memory
        path.write_bytes(content)

    def split(self, data: bytes) -> tuple[str, bytes]:
        """The first byte says which file it is."""
        return self.seeds.hostile[(data[0] if data else 0) % len(self.seeds.hostile)], data[1:]

    def corpus(self) -> list[bytes]:
        names = self.seeds.hostile
        whole = [bytes([i]) + self.seeds.files[name] for i, name in enumerate(names)]
        return whole + [bytes([names.index(name)]) + content for name, content in self.seeds.more]

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in _PROGRAMS and not (self.apart and arguments[0] == sys.executable):
            raise Forbidden(f"{event} {str(arguments)[:200]}")
        if event == "open" and isinstance(arguments[0], str | bytes):
            self._opened(*arguments)
        elif (
            event in _WRITES
            and isinstance(arguments[0], str | bytes)
            and not (self.writes and self._inside(arguments[0]))
        ):
            raise Forbidden(f"{event} {str(arguments)[:200]}")

    def _opened(self, path: str | bytes, mode: str | None, flags: int) -> None:
        writes = any(c in (mode or "") for c in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if self._inside(path) and (self.writes or not writes):
            return
        real = os.path.realpath(os.fsdecode(path))
        if (writes and real != "/dev/null") or not real.startswith(_READABLE):
            raise Forbidden(f"opened {real[:200]} for {'writing' if writes else 'reading'}")

    def _inside(self, path: str | bytes) -> bool:
        return os.path.realpath(os.fsdecode(path)).startswith(str(self.folder))

    @staticmethod
    def _memory(error: BaseException) -> BaseException | None:
        """The lack of memory that a reader turned into a refusal: it asked for more than its file stands for."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError) or "DefaultCPUAllocator" in str(cause):
                return MemoryError(f"beyond {MEMORY:,} bytes, and said: {error}").with_traceback(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        return None

    def _too_slow(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            raise TooSlow(f"more than {SECONDS} s of processor time")


def finding_of(error: BaseException) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "/fuzz/" not in f.filename] or frames
    place = f"{os.path.relpath(ours[-1].filename, ROOT)}:{ours[-1].name}" if ours else "?"
    if isinstance(error, TooSlow):  # wherever the clock struck: by the reader's first function
        place = f"{os.path.relpath(ours[0].filename, ROOT)}:{ours[0].name}"
    return Finding(type(error).__name__, place, "".join(traceback.format_exception(error))[-6000:])


def limit_memory() -> None:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    most = int(line.split()[1]) * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


class State:
    """What the process tells who watches it, in shared memory: it survives whatever happens to the process."""

    def __init__(self, shared: mmap) -> None:
        self.shared = shared

    def number(self, at: int, add: int = 0) -> int:
        value = int.from_bytes(self.shared[8 * at : 8 * at + 8], "little") + add
        if add:
            self.shared[8 * at : 8 * at + 8] = value.to_bytes(8, "little")
        return value

    def begin(self, phase: int, data: bytes = b"") -> None:
        self.shared[16:24] = phase.to_bytes(8, "little")
        if phase == READING:
            data = data[: STATE - 64]
            self.shared[24:32] = len(data).to_bytes(8, "little")
            self.shared[64 : 64 + len(data)] = data

    @property
    def phase(self) -> int:
        return self.number(2)

    @property
    def input(self) -> bytes:
        return bytes(self.shared[64 : 64 + self.number(3)])


def fuzz(
    target: str, seeds: Seeds, workplace: Path, found: Path, shared: mmap, seed: int, seconds: int, runs: int
) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris  # type: ignore[import-untyped]

    entries.try_apart = lambda path: None  # the library is fuzzed in this process, or there would be two runs a second
    bench, state = Bench(target, seeds, workplace), State(shared)
    corpus = workplace / "corpus"
    if not corpus.exists():
        corpus.mkdir()
        for i, data in enumerate(bench.corpus()):
            (corpus / f"{i:04}").write_bytes(data[:MAX_INPUT])
    limit_memory()

    def once(data: bytes) -> None:
        state.begin(READING, data)
        accepted, finding = bench.run(data)
        state.begin(IDLE)
        state.number(0, add=1)
        if accepted:
            state.number(1, add=1)
        if finding is not None and not (found / f"{finding.name}.input").exists():
            (found / f"{finding.name}.txt").write_text(finding.text, "utf-8", "backslashreplace")
            (found / f"{finding.name}.input").write_bytes(data)

    def changed(data: bytes, max_size: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.25:
            return bytes(atheris.Mutate(data, max_size))[:max_size]
        state.begin(CHANGING)
        signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, 2)
        try:
            name, content = bench.split(data)
            for _ in range(rng.choice((1, 1, 1, 2))):
                content = mutate.change(name, content, rng)
            return (data[:1] + content)[:max_size]
        except TooSlow:
            return data[:max_size]
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            state.begin(IDLE)

    def stop(*_: object) -> None:
        raise TooSlow

    options = {"seed": seed, "max_len": MAX_INPUT, "max_total_time": seconds, "runs": runs or -1, "timeout": 60}
    options |= {
        "rss_limit_mb": 0,
        "malloc_limit_mb": 0,
        "reload": 0,
        "len_control": 0,
        "verbosity": 0,
        "handle_segv": 0,
    }
    options |= {"handle_abrt": 0, "handle_bus": 0, "handle_fpe": 0, "handle_ill": 0, "detect_leaks": 0}
    arguments = ["fuzz", *(f"-{name}={value}" for name, value in options.items()), f"-artifact_prefix={workplace}/"]
    atheris.Setup([*arguments, str(corpus)], once, custom_mutator=changed)
    atheris.Fuzz()


def smaller(target: str, seeds: Seeds, workplace: Path, data: bytes, name: str, seconds: float) -> bytes:
    """A shorter input with the same finding: pieces are left out as long as it stays."""
    import time

    bench, stop = Bench(target, seeds, workplace), time.monotonic() + seconds
    limit_memory()
    size = max(1, (len(data) - 1) // 2)
    while size and time.monotonic() < stop:
        at = 1
        while at < len(data) and time.monotonic() < stop:
            shorter = data[:at] + data[at + size :]
            found = bench.run(shorter)[1]
            if found is not None and found.name == name:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def check(target: str, seeds: Seeds, workplace: Path, data: bytes) -> tuple[bool, Finding | None]:
    """One execution under the rules, in this process."""
    bench = Bench(target, seeds, workplace)
    bench.apart = True
    limit_memory()
    with contextlib.suppress(OSError):
        return bench.run(data)
    return False, None
