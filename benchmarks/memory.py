"""Peak memory of a run as the dataset grows: read into memory, and mapped from our own format."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.budget import Budget
from benchmarks.processes import forget_peak, python, status
from benchmarks.report import Table
from benchmarks.setting import ALIGNED, BATCH_SIZE, random_dataset, random_model
from corruptions import MODALITIES, Batch, Stress
from robustbench_msa.allocator import keep_freed_memory
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.stored import read_stored, write_stored
from robustbench_msa.evaluation.cells import Request, Subject, plan
from robustbench_msa.evaluation.execute import execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store

WAYS = ("in memory", "mapped")
STRESSES = {"missing": "0:0.8:0.4", "noise": "0:0.4:0.4"}


def memory(budget: Budget) -> list[Table]:
    rows = []
    for n in (250, 1000) if budget.quick else (1000, 2000, 4659):
        with tempfile.TemporaryDirectory() as folder:
            write_stored(random_dataset(n, ALIGNED), Path(folder) / "random.msa")
            size = (
                sum(x.nbytes for x in map(random_dataset(1, ALIGNED).splits["test"].features, MODALITIES)) * n / 2**20
            )
            for stress in ("missing",) if budget.quick else STRESSES:
                for way in WAYS:
                    out = python(["-m", "benchmarks.memory", f"{folder}/random.msa", way, stress]).out
                    peak, own = map(float, out.split())
                    facts = [f"{peak:.0f} MiB", f"{own:.0f} MiB", f"{own / size:.2f}"]
                    rows.append([f"{n:,}", f"{size:.0f} MiB", stress, way, *facts])
    columns = (
        "samples",
        "features",
        "stress",
        "dataset",
        "peak, with mapped pages",
        "peak of its own",
        "own / features",
    )
    note = (
        f"`qa_moe` (mosi), one seed, CPU, batches of {BATCH_SIZE}, a process a row; beyond what the process has after "
        "a run on two samples. Mapped pages are the system's to take back, so the peak of its own says what there "
        "must be room for. Draws of noise are kept in memory for all severities (up to 2 GiB), whatever the dataset is."
    )
    return [Table("Peak memory against dataset size", columns, rows, [note])]


def child(folder: str, way: str, stress_name: str) -> None:
    """Run the cells in this process; print peaks in MiB: resident, and anonymous, above what is there now."""
    keep_freed_memory()  # as the command line does
    with tempfile.TemporaryDirectory() as tiny:  # what is imported and set up by a first run is over then
        write_stored(random_dataset(2, ALIGNED), Path(tiny) / "tiny.msa")
        run(f"{tiny}/tiny.msa", way, stress_name)
    forget_peak()
    resident, anonymous = status("VmRSS"), status("RssAnon")
    highest, stop = [anonymous], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            highest[0] = max(highest[0], status("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    run(folder, way, stress_name)
    stop.set()
    watcher.join()
    print(status("VmHWM") - resident, highest[0] - anonymous)


def run(folder: str, way: str, stress_name: str) -> None:
    dataset = read_stored(Path(folder))
    if way == "in memory":
        dataset = Dataset(dataset.name, {name: in_memory(batch) for name, batch in dataset.splits.items()})
    inputs, stress = Inputs(dataset, "test"), Stress.parse(stress_name)
    model = random_model("qa_moe", "mosi", dataset)
    cells = plan(
        [Subject("qa_moe", 1, "b")], inputs.setting, [Request(stress, stress.grid(STRESSES[stress_name]), (1111,))]
    )
    with tempfile.TemporaryDirectory() as out:
        assert execute(cells, Store(Path(out)), {"b": lambda: model}, inputs).complete


def in_memory(batch: Batch) -> Batch:
    return batch.replace(**{m: batch.features(m).clone() for m in MODALITIES})


if __name__ == "__main__":
    child(*sys.argv[1:])
