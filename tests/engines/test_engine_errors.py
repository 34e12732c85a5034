"""Engines that cannot be: one line, exit code 2, and nothing written."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_msa.cli.main import main

Outcome = tuple[int, str, str]


@pytest.fixture
def msabench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Outcome]:
    def run(*options: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        given = ["--model", "chance", "--dataset", "synth:train=8,valid=4,test=6", "--stress", "missing", "--no-plots"]
        monkeypatch.setattr(sys, "argv", ["msabench", "run", *given, *options])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "--workers: expected 1 or more, got 0"),
        (["--workers", "-3"], "--workers: expected 1 or more, got -3"),
        (["--engine", "dask"], "--engine: expected local or ray, got 'dask'"),
        (["--shard", "0/4"], "--shard '0/4': expected I/N with I from 1 to N, as in 1/4 "),
        (["--shard", "5/4"], "--shard '5/4': expected I/N"),
        (["--shard", "/4"], "--shard '/4': expected I/N"),
        (["--address", "127.0.0.1:6379"], "--address is that of a Ray cluster: add --engine ray, or leave it out"),
    ],
)
def test_what_cannot_be_is_one_line(msabench, tmp_path: Path, options: list[str], said: str) -> None:
    code, out, err = msabench(*options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"msabench: {said}")
    assert not (tmp_path / "reports").exists()


def test_ray_that_is_not_installed_is_named_with_what_to_type(msabench, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_msa.engines import ray_cluster

    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    code, out, err = msabench("--engine", "ray")
    assert (code, out) == (2, "")
    assert err == 'msabench: --engine ray needs the library Ray: pip install "robustbench-msa[ray]"\n'


@pytest.mark.parametrize("address", ["here", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "ray://127.0.0.1:10001"])
def test_an_address_that_is_none(msabench, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_msa.engines import ray_cluster

    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: object())
    code, _, err = msabench("--engine", "ray", "--address", address)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"msabench: --address '{address}': expected HOST:PORT, as ray start --head says it, or auto")


def test_an_address_where_nobody_answers(msabench, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_msa.engines import ray_cluster

    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: object())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        code, _, err = msabench("--engine", "ray", "--address", f"127.0.0.1:{port}")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"msabench: --address 127.0.0.1:{port}: nobody answers there")


def test_one_share_says_what_is_there_of_the_whole(msabench, tmp_path: Path) -> None:
    code, out, _ = msabench("--shard=1/2", "--out", "run")
    assert code == 0
    assert "shard   1/2 done; of the whole run " in out
    commands = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["commands"]
    assert len(commands) == 1
    assert "--shard" not in commands[0]
    assert commands[0].endswith("--no-plots --out run")
