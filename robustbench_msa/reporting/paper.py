"""What a paper needs of runs: figures, tables, the CSV behind each, and a document that compiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from corruptions import InputError
from robustbench_msa.analysis.comparisons import compare
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.analysis.tables import Tables
from robustbench_msa.atomic import write_bytes, write_text
from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.schemas import CELLS, frame_of
from robustbench_msa.evaluation.store import Store
from robustbench_msa.reporting import entries, style
from robustbench_msa.reporting.choice import line_name
from robustbench_msa.reporting.comparison_figure import comparison_caption, comparison_figure, comparison_info
from robustbench_msa.reporting.comparison_latex import comparison_latex
from robustbench_msa.reporting.comparison_table import comparison_frame
from robustbench_msa.reporting.curves_figure import curves_caption, curves_figure, curves_info, others_note
from robustbench_msa.reporting.difference_figure import difference_caption, difference_figure, difference_info
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.figures import slug
from robustbench_msa.reporting.landscape_figure import (
    fitting_a_page,
    landscape_caption,
    landscape_figure,
    landscape_info,
    landscape_note,
)
from robustbench_msa.reporting.leaderboard import leaderboard
from robustbench_msa.reporting.paper_text import Picture, checkpoint_table, input_table, paper_tex, reproducibility

MAX_COLUMNS = 4
"""Scores side by side in a leaderboard of a page's width, with their intervals."""


class Drawn(NamedTuple):
    """A figure before it is written. name: of its files; frame: the numbers behind."""

    name: str
    figure: Figure
    frame: pd.DataFrame
    caption: str


class Tabled(NamedTuple):
    """A table before it is written."""

    name: str
    latex: str
    frame: pd.DataFrame


def write_paper(folders: Sequence[Path], out: Path, metrics: Sequence[str] | None = None) -> list[Path]:
    """Write ``out/paper.tex``, its figures and tables, and the CSV behind each; the same runs give the same bytes.

    Figures (``figures/``, PDF at the widths of a column or a page): severity curves; a landscape per two-axis stress,
    and the difference between its two best lines; with two lines or more, everyone against the best. Tables
    (``tables/``, booktabs): a leaderboard per metric, and paired differences with Holm's p. The document says how to
    get the same numbers; ``checkpoints.csv`` and ``inputs.csv`` hold all digests.

    Args:
        folders: of runs on the same data.
        metrics: default the profile's usual ones; the first is that of landscapes and comparisons.

    Returns:
        every file that was written, paper.tex first.

    Raises:
        InputError: no finished run, runs on different data, or an unknown metric. Nothing is written then.
    """
    tables = open_tables(folders)
    if not tables.cells:
        raise InputError(f"{folders[0]}: no cell is finished there; run msabench run first")
    curves, nauc = frame_of(tables.curves()), frame_of(tables.nauc())
    chosen = entries.choose_metrics(entries.shown(nauc), metrics)
    pairs = frame_of(compare(tables, permutations=0).comparisons)
    compared = list(_comparisons(pairs, chosen))
    drawn = [*_curves(curves, chosen), *_landscapes(tables, curves, nauc, chosen[0])]
    drawn += [part for part in compared if isinstance(part, Drawn)]
    tabled = [*_leaderboards(tables, nauc, chosen), *(part for part in compared if isinstance(part, Tabled))]
    plans = {Path(folder).name: recall(Store(Path(folder))) for folder in folders}
    inputs = input_table(pd.concat([_cells(Path(folder)) for folder in folders]))
    return _write(out, drawn, tabled, reproducibility(plans, inputs), checkpoint_table(plans), inputs)


def _write(
    out: Path,
    drawn: Sequence[Drawn],
    tabled: Sequence[Tabled],
    reproduced: str,
    checkpoints: pd.DataFrame,
    inputs: pd.DataFrame,
) -> list[Path]:
    """Everything, the document last."""
    written: list[Path] = []
    (out / "figures").mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, figure, frame, caption in drawn:
        files = save_figure(figure, frame, out / "figures" / name)
        written += files
        wide = float(figure.get_size_inches()[0]) > style.COLUMN + 0.05
        pictures.append(Picture(Path("figures", f"{name}.pdf"), caption, f"fig:{name}", wide))
    for name, latex, frame in tabled:
        written += [out / "tables" / f"{name}.tex", out / "tables" / f"{name}.csv"]
        write_text(written[-2], latex + "\n")
        write_bytes(written[-1], _csv(frame))
    for name, frame in (("checkpoints", checkpoints), ("inputs", inputs)):
        written.append(out / f"{name}.csv")
        write_bytes(written[-1], _csv(frame))
    inputs_of = [Path("tables", f"{table.name}.tex") for table in tabled]
    text = paper_tex(pictures, inputs_of, reproduced, "".join(table.latex for table in tabled))
    write_text(out / "paper.tex", text)
    return [out / "paper.tex", *written]


def _curves(curves: pd.DataFrame, metrics: Sequence[Metric]) -> Iterator[Drawn]:
    one_axis = curves["severity_2"].isna() & (curves["stress"] != "clean")
    if one_axis.any():
        info = curves_info(curves, [metric.name for metric in metrics])
        caption = " ".join(filter(None, [curves_caption(info), others_note(info)]))
        yield Drawn("curves", curves_figure(info), info.frame(), caption)


def _landscapes(tables: Tables, curves: pd.DataFrame, nauc: pd.DataFrame, metric: Metric) -> Iterator[Drawn]:
    two_axes = curves[curves["severity_2"].notna()]
    for stress, params in two_axes[["stress", "params"]].drop_duplicates().itertuples(index=False):
        info = fitting_a_page(landscape_info(curves, metric.name, stress, params or ""))
        name = f"{slug(stress, params)}-{metric.name}"
        caption = f"{landscape_caption(info)} {landscape_note(info)}"
        yield Drawn(f"landscape-{name}", landscape_figure(info), info.frame(), caption)
        best = _two_best(nauc[(nauc["stress"] == stress) & (nauc["params"].fillna("") == (params or ""))], metric)
        label = f"{stress}:{params}" if params else stress
        with suppress(InputError):  # lines that cannot be told apart by name, or not one request for both
            against = difference_info(tables, best[:1], best[1], metric.name, label) if len(best) == 2 else None
            if against is not None:
                figure = difference_figure(against)
                yield Drawn(f"difference-{name}", figure, against.frame(), difference_caption(against))


def _two_best(nauc: pd.DataFrame, metric: Metric) -> list[str]:
    rows = [row.entry for row in leaderboard(nauc, [metric.name]).rows if not row.entry.is_reference]
    return [line_name(entry) for entry in rows[:2]]


def _leaderboards(tables: Tables, nauc: pd.DataFrame, metrics: Sequence[Metric]) -> Iterator[Tabled]:
    """One per metric, or several where the stresses do not fit a page side by side."""
    for metric in metrics:
        board = leaderboard(nauc, [metric.name])
        over = list(dict.fromkeys((column.stress, column.params) for column in board.columns))
        parts = np.array_split(np.arange(len(over)), -(-len(board.columns) // MAX_COLUMNS))
        for i, part in enumerate(filter(len, parts), 1):
            mine = [over[j] for j in part]
            where = zip(nauc["stress"], nauc["params"].fillna(""), strict=True)
            some = leaderboard(nauc[[key in mine for key in where]], [metric.name], tables=tables)
            name = f"leaderboard-{metric.name}" + (f"-{i}" if len(parts) > 1 else "")
            latex = some.to_latex(label=f"tab:{name}")
            if len(some.columns) > 1:  # with intervals, two are too wide for one column
                latex = latex.replace("{table}", "{table*}")
            yield Tabled(name, latex, some.to_frame())


def _comparisons(pairs: pd.DataFrame, metrics: Sequence[Metric]) -> Iterator[Drawn | Tabled]:
    """A figure for the first metric, and tables for all, of checkpoints and of methods."""
    if not (pairs["score"].eq("nauc") & pairs["grid"].notna()).any():
        return
    frame = comparison_frame(pairs, "nauc", [metric.name for metric in metrics])
    for claim in ("method", "checkpoint"):
        for metric in metrics:
            with suppress(InputError):  # fewer than two lines of this kind
                info = comparison_info(frame, metric.name, claim)
                name = f"comparison-{claim}-{metric.name}"
                if metric == metrics[0]:
                    yield Drawn(name, comparison_figure(info), info.frame(), comparison_caption(info))
                parts = comparison_latex(info, f"tab:{name}")
                for i, latex in enumerate(parts, 1):
                    yield Tabled(f"{name}-{i}" if len(parts) > 1 else name, latex, info.frame())


def _cells(folder: Path) -> pd.DataFrame:
    return frame_of(Store(folder).read_table("cells", CELLS))


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()
