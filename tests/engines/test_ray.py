"""The engine ray on real clusters: one that it starts itself, and one of two nodes of which one is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_runs import CELLS, NAME, assert_same, workers_of

from corruptions import InputError
from robustbench_msa.engines import engine, on_ray
from robustbench_msa.engines.on_ray import lacking
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.store import Store
from robustbench_msa.run import Benchmark, benchmark

pytest.importorskip("ray", reason='needs the extra "ray"')
pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and log files open when it is shut down.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Benchmark]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with room for one task each; the driver's own is the first."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # on all machines of a cluster this package is to be found
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.second = made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
        made.shutdown()


def test_a_cluster_of_its_own(job: Run, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, told = tmp_path / "run", []
    tally = job(out, engine="ray", workers=2, progress=lambda cell, ok: told.append((cell.key, ok))).tally
    assert (tally.planned, tally.reused, tally.computed, tally.failed) == (CELLS, 0, CELLS, 0)
    assert len(told) == len(dict(told)) == CELLS
    assert all(succeeded for _, succeeded in told)
    assert 1 <= len(workers_of(out)) <= 2
    assert_same(out, reference)
    assert job(out, engine="ray").tally.reused == CELLS
    assert capfd.readouterr() == ("", ""), "Ray is silent"


def test_cells_that_kill_every_worker_are_recorded_and_the_others_go_on(
    cluster: Any, killer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {"dataset": NAME, "out": tmp_path / "run", "engine": "ray", "address": cluster.address, "seeds": 1}
    done = benchmark(killer, "noise-lambda", "2", **asked)
    assert (done.tally.planned, done.tally.computed, done.tally.failed) == (6, 5, 1)
    (message,) = Store(done.out).failures().values()
    assert message == "WorkerDied: its workers died one after the other (WorkerCrashedError)"
    assert capfd.readouterr().out == "", "stdout is for results"

    (tmp_path / "killer.py").write_text("raise OSError('no such device')", "utf-8")
    with pytest.raises(InputError, match="no such device"):
        benchmark(killer, "noise-lambda", "2", **asked)


def test_a_node_that_is_killed_costs_the_cells_in_its_hands(
    job: Run, reference: Path, cluster: Any, tmp_path: Path
) -> None:
    out, gone = tmp_path / "run", []

    def kill(cell: Cell, succeeded: bool) -> None:
        if not gone and len(workers_of(out)) == 2:
            gone.append(cluster.second)
            cluster.remove_node(cluster.second, allow_graceful=False)

    tally = job(out, engine="ray", address=cluster.address, progress=kill).tally
    assert len(gone) == 1
    assert (tally.computed, tally.failed) == (CELLS, 0)
    assert_same(out, reference)


def test_a_cluster_without_room_is_waited_for_and_says_so(
    job: Run, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def lacking_until_it_grows(*given: Any) -> str | None:
        lack = lacking(*given)
        cluster.add_node(num_cpus=2)
        return lack

    monkeypatch.setattr(engine, "threads_of", lambda workers: 2)  # no machine has two
    monkeypatch.setattr(on_ray, "lacking", lacking_until_it_grows)
    tally = job(tmp_path / "run", engine="ray", address=cluster.address).tally
    assert (tally.computed, tally.failed) == (CELLS, 0)
    assert "no machine of the Ray cluster has 2 CPUs, which a task takes" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpu", "told"),
    [
        ([(4, 0)], 2, False, None),
        ([(1, 0), (8, 1)], 2, True, None),
        ([(4, 1), (1, 8)], 4, True, None),
        ([(4, 0), (8, 0)], 2, True, "has 2 CPUs and a GPU, which a task takes (there are: CPU 4, GPU 0; CPU 8, GPU 0)"),
        ([(1, 0), (1, 8)], 2, True, "--device cpu needs no GPU"),
        ([(1, 0), (1, 0)], 2, False, "has 2 CPUs, which a task takes"),
    ],
)
def test_a_machine_that_nobody_has(nodes, cpus, gpu, told) -> None:
    listed = [{"Alive": True, "Resources": {"CPU": float(c), **({"GPU": float(g)} if g else {})}} for c, g in nodes]
    listed.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    found = lacking(listed, cpus, gpu)
    assert found is None if told is None else told in str(found)
