"""The benchmarks compare sides that compute the same, and write their tables where they should. No timing here."""

from __future__ import annotations

import importlib
import sys
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of what is installed

from benchmarks import all as every  # noqa: E402
from benchmarks import corruption, emoe_fusion, main_job, memory, report, usual_loop  # noqa: E402
from benchmarks.overhead import forward  # noqa: E402
from benchmarks.setting import bench, ran, random_dataset, random_model  # noqa: E402
from benchmarks.timing import alternate  # noqa: E402
from robustbench_msa.data.stored import read_stored, write_stored  # noqa: E402
from robustbench_msa.evaluation.inputs import Inputs  # noqa: E402
from robustbench_msa.models import emoe  # noqa: E402

SMALL = {"text": (7, 12), "audio": (9, 5), "vision": (6, 4)}


class TestSides:
    @pytest.mark.parametrize("name", ["emoe", "qa_moe", "rider_moe"])
    def test_the_usual_loop_predicts_what_the_harness_predicts(self, name: str) -> None:
        b = bench(name, "synth", 23, shape=SMALL)
        cells = [cell for cell in b.cells if cell.seed in (None, 1112)]
        assert {cell.stress for cell in cells} == {"clean", "noise", "missing", "conflict"}
        data, recipes = usual_loop.arrays_of(b.inputs.batch), usual_loop.recipes_of(b.inputs, cells, own_noise=False)
        with ran(b, cells, batch_size=16) as store:
            for cell, recipe in zip(cells, recipes, strict=True):
                ours = store.predictions(cell.key, ["y_true", "y_pred"])
                theirs = usual_loop.predict(b.model, data, recipe, 5, "cpu")
                np.testing.assert_array_equal(ours["y_true"].to_numpy(), theirs["y_true"])
                np.testing.assert_allclose(ours["y_pred"].to_numpy(), theirs["y_pred"], rtol=0, atol=2e-5)

    def test_the_loops_own_noise_is_as_strong_as_the_harness_noise_and_on_valid_steps_alone(self) -> None:
        b = bench("late_fusion", "synth", 300, shape=SMALL)
        cell = next(cell for cell in b.of("noise") if cell.severity == "0.5")
        data = usual_loop.arrays_of(b.inputs.batch)
        own, keyed = (
            usual_loop.StressedSplit(data, *usual_loop.recipes_of(b.inputs, [cell], own_noise=own)).arrays
            for own in (True, False)
        )
        for m in ("audio", "vision"):
            assert not np.array_equal(own[m], keyed[m])
            np.testing.assert_allclose(np.std(own[m] - data[m]), np.std(keyed[m] - data[m]), rtol=0.05)
            padding = np.arange(data[m].shape[1])[None] >= data[f"{m}_lengths"][:, None]
            assert padding.any()
            assert not own[m][padding].any()

    def test_bare_passes_predict_what_the_harness_predicts(self) -> None:
        b = bench("qa_moe", "synth", 23, shape=SMALL)
        noise = b.of("noise")[:4]
        bare = forward(b.model, [b.inputs.corruption(cell).batch for cell in noise], batch_size=8)
        with ran(b, noise) as store:
            for cell, theirs in zip(noise, bare, strict=True):
                ours = store.predictions(cell.key, ["y_pred"])["y_pred"].to_numpy()
                np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-5)

    @pytest.mark.parametrize("fusion", ["sum", "concat"])
    def test_fusion_one_by_one_is_ours(self, fusion: str) -> None:
        h, w = torch.randn(5, 3, 4), torch.rand(5, 3)
        torch.testing.assert_close(emoe_fusion.combine_one_by_one(h, w, fusion), emoe.combine(h, w, fusion))

    def test_emoe_is_itself_again_after_fusing_one_by_one(self) -> None:
        dataset = random_dataset(6, SMALL)
        model, batch, ours = random_model("emoe", "synth", dataset), dataset.splits["test"], emoe.combine
        with torch.inference_mode():
            with emoe_fusion.one_by_one():
                assert emoe.combine is emoe_fusion.combine_one_by_one
                slow = model(batch).prediction
            assert emoe.combine is ours
            torch.testing.assert_close(slow, model(batch).prediction)

    def test_the_three_ways_to_corrupt_agree_and_a_difference_would_show(self) -> None:
        inputs = Inputs(random_dataset(70, SMALL), "test")
        cells, data = corruption.stressed_cells(inputs), usual_loop.arrays_of(inputs.batch)
        recipes = usual_loop.recipes_of(inputs, cells, own_noise=False)
        assert len(cells) == 13
        corruption.agree(inputs, data, cells, recipes)
        with pytest.raises(AssertionError, match="text"):
            corruption.agree(inputs, data | {"text": data["text"] + 1e-3}, cells[:1], recipes[:1])

    def test_memory_in_memory_holds_the_same_values_elsewhere(self, tmp_path: Path) -> None:
        write_stored(random_dataset(4, SMALL), tmp_path / "d.msa")
        mapped = read_stored(tmp_path / "d.msa").splits["test"]
        own = memory.in_memory(mapped)
        for m in SMALL:
            assert own.features(m).equal(mapped.features(m))
            assert own.features(m).data_ptr() != mapped.features(m).data_ptr()

    def test_sides_take_turns(self) -> None:
        calls: list[str] = []
        found = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
        assert calls == ["a", "b", "b", "a", "a", "b"]
        assert [len(turns) for turns in found.turns.values()] == [3, 3]


class TestPage:
    PAGE = (
        "# Text\n\n<!-- benchmarks: cuda begin -->\n\n<!-- case: a -->\n\ngpu\n\n<!-- benchmarks: cuda end -->\n\n"
        "between\n\n"
        "<!-- benchmarks: cpu begin -->\n\n<!-- case: b -->\n\nold b\n\n<!-- benchmarks: cpu end -->\n\nlast\n"
    )

    def test_only_the_cases_that_ran_on_this_device_change(self) -> None:
        page = report.with_sections(self.PAGE, "cpu", {"a": "new a\n"}, ("a", "b"))
        expected = "begin -->\n\n<!-- case: a -->\n\nnew a\n\n<!-- case: b -->\n\nold b\n\n<!-- benchmarks: cpu end"
        assert page == self.PAGE.replace("begin -->\n\n<!-- case: b -->\n\nold b\n\n<!-- benchmarks: cpu end", expected)
        assert report.with_sections(page, "cpu", {"a": "new a"}, ("a", "b")) == page

    def test_a_page_without_markers_stays_as_it_is(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("# Text\n", "utf-8")
        with pytest.raises(ValueError, match="expected <!-- benchmarks: cpu begin -->"):
            report.write_page(page, "cpu", {"a": "1"}, ("a",))
        assert page.read_text("utf-8") == "# Text\n"

    def test_a_new_page_is_begun(self, tmp_path: Path) -> None:
        for _ in range(2):
            report.write_page(tmp_path / "new.md", "cpu", {"a": "1"}, ("a",))
        assert report.sections_in((tmp_path / "new.md").read_text("utf-8").rpartition("<!--")[0]) == {"a": "1"}

    def test_docs_performance_has_the_markers(self) -> None:
        page = (ROOT / "docs/performance.md").read_text("utf-8")
        for device in ("cpu", "cuda"):
            assert set(report.sections_in(report.block(page, device)[1])) <= set(every.CASES)

    def test_a_table_is_as_wide_as_its_head(self) -> None:
        table = report.Table("T", ("what", "n"), [["a|b", "1"]], ["A note."])
        assert table.markdown() == "### T\n\n| what | n |\n| --- | --: |\n| a\\|b | 1 |\n\nA note.\n"


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--only", "overhed"], "no case 'overhed' (did you mean 'overhead'?); there are main_job, overhead, "),
            (["--only", "store", "x"], "no case 'x'; there are"),
            (["--out", "table.txt"], "expected a name that ends in .md or .json"),
        ],
    )
    def test_bad_input_is_one_line(
        self, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["all.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            every.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert said in error
        assert error.count("\n") == 1

    def test_a_case_is_printed_and_put_into_its_section(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        table = report.Table("A case", ("x",), [["42"]])
        monkeypatch.setattr(every, "CASES", {"some": lambda budget: [table], "other": lambda budget: []})
        monkeypatch.setattr(sys, "argv", ["all.py", "--quick", "--only", "some", "--device", "cpu"])
        every.main()
        printed = capsys.readouterr().out
        assert "| 42 |" in printed
        assert "too small for figures to quote" in printed
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path / "part.md")])
        every.main()
        assert "| 42 |" in report.sections_in(report.block((tmp_path / "part.md").read_text("utf-8"), "cpu")[1])["some"]


class TestProfile:
    def test_a_stage_has_its_own_time_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        clocks = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
        monkeypatch.setattr(main_job, "time", clocks)
        clock = main_job.Clock()

        def passes(seconds: float) -> None:
            now[0] += seconds

        inner = clock.wrapped("inner", lambda: passes(4.0))

        def outer() -> None:
            passes(1.0)
            inner()
            passes(2.0)

        passes(8.0)
        clock.wrapped("outer", outer)()
        passes(16.0)
        clock.mark()
        assert clock.seconds == {main_job.REST: [24.0, 12.0], "outer": [3.0, 1.5], "inner": [4.0, 2.0]}

    @pytest.mark.parametrize("target", [target for _, target in main_job.STAGES])
    def test_a_stage_is_where_the_profile_looks_for_it(self, target: str) -> None:
        module, path = target.split(":")
        *outer, last = path.split(".")
        owner = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        found = vars(owner)[last]
        assert callable(found) or isinstance(found, cached_property)
