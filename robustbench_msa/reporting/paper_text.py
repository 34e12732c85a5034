"""The words of the paper output: its LaTeX frame, and the paragraph that says how to get the same numbers."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from robustbench_msa.evaluation.records import Planned
from robustbench_msa.reporting import names
from robustbench_msa.reporting.leaderboard_latex import escape_latex

HASH = 12
"""Digits of a digest that are printed; the CSV files have all of them."""


class Picture(NamedTuple):
    """A figure's file, relative to the paper, and what stands below it. wide: over both columns."""

    path: Path
    caption: str
    label: str
    wide: bool


def paper_tex(pictures: Sequence[Picture], tables: Sequence[Path], reproducibility: str, included: str) -> str:
    """The whole document. tables: files to input; included: their text, for the characters that it needs."""
    body = [*map(_float, pictures), *(f"\\input{{{path.with_suffix('').as_posix()}}}" for path in tables)]
    text = "\n\n".join([*body, "\\section*{Reproducibility}", reproducibility])
    head = "\n".join(
        [
            "% Written by msabench report --paper; it will be written again. Copy what you keep.",
            "\\documentclass[twocolumn]{article}",
            "% no bitmap fonts, with or without Latin Modern",
            "\\IfFileExists{lmodern.sty}{\\usepackage[T1]{fontenc}\\usepackage{lmodern}}"
            "{\\AtBeginDocument{\\renewcommand{\\textdagger}{\\ensuremath{\\dagger}}}}",
            "\\renewcommand{\\labelitemi}{$\\bullet$}",
            "\\usepackage[utf8]{inputenc}",
            "\\usepackage[textwidth=6.75in,textheight=9.6in,columnsep=0.25in]{geometry}",
            "\\usepackage{booktabs,graphicx,xcolor}",
            *_declared(text + included),
            "\\setcounter{topnumber}{4}",
            "\\setcounter{dbltopnumber}{4}",
            "\\renewcommand{\\topfraction}{.95}",
            "\\renewcommand{\\dbltopfraction}{.95}",
            "\\begin{document}",
        ]
    )
    return f"{head}\n\n{text}\n\n\\end{{document}}\n"


def reproducibility(plans: Mapping[str, Planned], inputs: pd.DataFrame) -> str:
    """How to get the same numbers: data, stresses, seeds, checkpoints, versions, commands.

    plans: by the name of the run's folder; inputs: ``input_table`` of all.
    """
    first = next(iter(plans.values())).manifest["dataset"]
    data = f"{names.DATASETS.get(first['name'], first['name'])}, {first['split']} split"
    checkpoints = checkpoint_table(plans)
    sentences = [
        f"Data: {escape_latex(data)}, fingerprint {_mono(first['data'][:HASH])}.",
        f"Stresses, with grids and corruption seeds: {'; '.join(_requests(plans))}.",
        *(
            f"Protocol {_mono(name)}, sha256 {_mono(hashlib.sha256(text.encode()).hexdigest()[:HASH])}."
            for name, text in _protocols(plans).items()
        ),
        f"{len(checkpoints)} checkpoints and references (checkpoints.csv), {len(inputs)} inputs (inputs.csv), sha256 "
        f"over their digests {_mono(_digest(inputs)[:HASH])}.",
        f"Versions: {escape_latex('; '.join(_versions(plans)))}.",
        "The same seed gives every model the same corrupted input; intervals resample groups.",
    ]
    commands = [_command(command) for plan in plans.values() for command in plan.manifest["commands"]]
    listed = "\n".join(f"\\item {command}" for command in commands)
    return "\n".join(sentences) + f"\n\n\\noindent Commands:\n\\begin{{itemize}}\n{listed}\n\\end{{itemize}}"


def checkpoint_table(plans: Mapping[str, Planned]) -> pd.DataFrame:
    """Every checkpoint of all runs: what it is, how it was trained and selected, and its digests."""
    rows: dict[str, dict[str, Any]] = {}
    for plan in plans.values():
        for identity, about in plan.manifest["checkpoints"].items():
            selection = about.get("selection") or {}
            rows[identity] = {
                **{name: about.get(name) for name in ("model", "recipe", "train_seed", "parameters")},
                "selected_by": selection.get("by"),
                "selection_value": selection.get("value"),
                "checkpoint": identity,
                "weights_sha256": about.get("weights_sha256"),
            }
    return pd.DataFrame(list(rows.values())).astype({"train_seed": "Int64", "parameters": "Int64"})


def input_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Every corrupted input once, by its digest. cells: the tables of cells of all runs."""
    columns = ["dataset", "split", "stress", "params", "severity", "severity_2", "condition", "seed", "input_digest"]
    return (
        cells[columns]
        .drop_duplicates()
        .sort_values(columns, kind="stable", key=lambda c: c.astype(str), ignore_index=True)
    )


def _float(picture: Picture) -> str:
    environment = "figure*" if picture.wide else "figure"
    return "\n".join(
        [
            f"\\begin{{{environment}}}[t]",
            "\\centering",
            f"\\includegraphics{{{picture.path.as_posix()}}}",
            f"\\caption{{{escape_latex(picture.caption)}}}",
            f"\\label{{{picture.label}}}",
            f"\\end{{{environment}}}",
        ]
    )


def _declared(text: str) -> list[str]:
    """What LaTeX must be told of characters that it does not know: Greek as mathematics, others as a question mark."""
    found = []
    for character in sorted(set(text)):
        if ord(character) > 0x17F and not unicodedata.name(character, "").startswith("LATIN"):
            name = unicodedata.name(character, "")
            greek = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name)
            letter = (greek[2].lower() if greek[1] == "SMALL" else greek[2].title()) if greek else ""
            known = _SYMBOLS.get(character, f"\\{letter}" if letter in _GREEK else "")
            shown = f"\\ensuremath{{{known}}}" if known else "?"
            found.append(f"\\DeclareUnicodeCharacter{{{ord(character):04X}}}{{{shown}}}")
    return found


_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "pi"),
    *("rho", "sigma", "tau", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Pi", "Sigma", "Omega"),
)
_SYMBOLS = {"≤": "\\leq", "≥": "\\geq", "→": "\\rightarrow", "≠": "\\neq", "≈": "\\approx", "±": "\\pm", "−": "-"}


def _requests(plans: Mapping[str, Planned]) -> list[str]:
    found: dict[str, None] = {}
    for plan in plans.values():
        for request in plan.requests:
            seeds = request.seeds if request.stress.stressor.random else ()
            drawn = f", seeds {seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else f", seed {seeds[0]}" if seeds else ""
            label = request.stress.label.replace(",", ", ")
            found[f"{_mono(label)} {_breakable(str(request.grid))}{escape_latex(drawn)}"] = None
    return list(found)


def _protocols(plans: Mapping[str, Planned]) -> dict[str, str]:
    return {name: text for plan in plans.values() for name, text in plan.manifest["protocols"].items()}


def _versions(plans: Mapping[str, Planned]) -> list[str]:
    """Of each run that has others than those before."""
    found: dict[str, None] = {}
    for plan in plans.values():
        named = ", ".join(f"{name} {version}" for name, version in plan.manifest["versions"].items())
        commit = plan.manifest["commit"]
        found[named + (f", commit {commit[:HASH]}" if commit else "")] = None
    return list(found)


def _digest(inputs: pd.DataFrame) -> str:
    return hashlib.sha256("\n".join(sorted(set(inputs["input_digest"]))).encode()).hexdigest()


def _mono(text: str) -> str:
    return f"\\texttt{{{escape_latex(text)}}}"


def _breakable(text: str) -> str:
    """Text in which lines may break after commas and colons."""
    return re.sub(r"([,:x])", r"\1\\allowbreak{}", escape_latex(text))


def _command(command: str) -> str:
    """A command that may break at its spaces; folders of this machine are left out."""
    words = [Path(word).name if word.startswith("/") else word for word in command.split(" ")]
    return f"{{\\footnotesize\\raggedright {' '.join(_mono(word) for word in words)}\\par}}"
