"""``msabench list``: what there is to type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    no_args_is_help=True, help="List models, datasets, stresses, protocols, checkpoints or published tables."
)
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
_VALIDATED = {"valid MAE": "mae", "valid Corr": "corr", "valid Acc": "acc", "valid F1": "f1_macro"}


@app.command()
def models(as_json: Json = False) -> None:
    """Models that can be trained and evaluated, the references, and what installed plug-ins offer.

    Beside these --model takes FILE.py:FUNCTION (msabench init-adapter) and mmsa:NAME (docs/mmsa.md).
    """
    from robustbench_msa.models.registry import MODELS, model_class

    classes = [model_class(name) for name in MODELS]
    rows = [{"name": c.name, "presets": ", ".join(c.presets), "paper": c.paper} for c in classes]
    rows.append({"name": "chance", "presets": "", "paper": "the best constant of the training labels"})
    rows.append({"name": "oracle", "presets": "", "paper": "the exact Bayes decision (synthetic data only)"})
    rows += [{"name": name, "presets": "", "paper": what} for name, what in _offered("msabench.models").items()]
    _show(rows, ["name", "presets", "paper"], as_json)


@app.command()
def datasets(as_json: Json = False) -> None:
    """Datasets by name; all but synth need --data PATH."""
    from robustbench_msa.data.registry import known_datasets

    _show([{"name": name, "what": what} for name, what in known_datasets().items()], ["name", "what"], as_json)


@app.command()
def stresses(as_json: Json = False) -> None:
    """Stressors with their severity axes, default grids and parameters, and what installed plug-ins offer."""
    from rich.padding import Padding
    from rich.text import Text

    from corruptions.registry import describe
    from robustbench_msa.cli.display import console, say

    rows, offered = describe(), _offered("msabench.stressors")
    if as_json:
        _show([*rows, *({"name": name, "summary": what} for name, what in offered.items())], [], as_json)
        return
    for row in rows:
        console.print(f"[bold]{row['name']}[/bold]  {row['axis']}, default {row['default_grid']}", highlight=False)
        told = "models are told" if row["told"] == "yes" else "models are not told"
        about = f"{told}; {row['parameters']}" if row["parameters"] else told
        for text in (f"{row['summary']} ({about})", row["formula"]):
            console.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)))
    for name, what in offered.items():
        say(f"{name}  {what}")
    say("On some modalities alone: --stress noise --modalities audio. One after the other: --stress noise+missing")


@app.command()
def protocols(as_json: Json = False) -> None:
    """Named protocols: stresses with grids, what sums them up, and where they come from.

    Your own: a .toml file in the same layout, run with --protocol path/to/mine.toml
    """
    from rich.padding import Padding
    from rich.text import Text

    from corruptions.protocols import Protocol, shipped
    from robustbench_msa.cli.display import console

    loaded = [Protocol.load(name) for name in shipped()]
    if as_json:
        rows = [
            {name: getattr(p, name) for name in ("name", "version", "score", "reference", "description")}
            | {"stresses": [{"stress": stress.label, "grid": str(grid)} for stress, grid in p.stresses]}
            for p in loaded
        ]
        _show(rows, [], as_json)
        return
    for p in loaded:
        console.print(f"[bold]{p.name}[/bold]  version {p.version}, summed up by {p.score}", highlight=False)
        for stress, grid in p.stresses:
            console.print(f"    {stress.label}  {grid}", markup=False, highlight=False)
        for text in (p.description, f"From: {p.reference}"):
            console.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)))
        console.print()


@app.command()
def checkpoints(as_json: Json = False) -> None:
    """Checkpoints found under ./checkpoints, $MSABENCH_CHECKPOINTS and those that came with the package."""
    import sys

    from robustbench_msa.models.checkpoint import list_checkpoints

    found, unreadable = list_checkpoints()
    rows = [
        {
            "dataset": c.dataset,
            "model": c.model,
            "recipe": c.recipe,
            "seed": c.train_seed,
            **{title: c.config["validation"].get(metric) for title, metric in _VALIDATED.items()},
            "parameters": c.config["parameters"],
            "path": str(c.path),
        }
        for c in found
    ]
    scores = [title for title in _VALIDATED if any(row[title] is not None for row in rows)]
    _show(rows, ["dataset", "model", "recipe", "seed", *scores, "parameters"], as_json)
    for line in unreadable:
        print(f"msabench: skipped: {line}", file=sys.stderr)


@app.command()
def published(as_json: Json = False) -> None:
    """Results tables of the five papers, as they come with the package.

    Beside your own run, in grey: msabench leaderboard RUN --published
    """
    from robustbench_msa.cli.display import say
    from robustbench_msa.published import PAPERS, tables

    rows = tables().to_dict("records")
    _show(rows, ["paper", "table", "setting", "datasets", "metrics", "rows"], as_json)
    if not as_json:
        for name, title in PAPERS.items():
            say(f"{name}: {title}")


def _offered(group: str) -> dict[str, str]:
    """What plug-ins offer, by name; none of them is run for that."""
    from robustbench_msa.plugins import entry_points

    return {name: f"a plug-in ({entry.value})" for name, entry in entry_points(group).items()}


def _show(rows: Sequence[Any], columns: list[str], as_json: bool) -> None:
    from rich import box
    from rich.table import Table

    from robustbench_msa.cli.display import console, print_json

    if as_json:
        print_json([dict(row) for row in rows])
        return
    if not rows:
        console.print("none found")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in columns:
        numbers = bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        long = any(len(line) > 24 for row in rows for line in str(row[column]).splitlines())
        justify: Literal["left", "right"] = "right" if numbers else "left"
        table.add_column(column.replace("_", " "), justify=justify, overflow="fold", no_wrap=not long)
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
