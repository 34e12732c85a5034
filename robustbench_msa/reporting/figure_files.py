"""A figure on disk: PNG to look at, PDF to print, and the numbers that it shows."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from robustbench_msa.atomic import write_bytes
from robustbench_msa.reporting.style import styled

DPI = 200
# Nothing of the moment or the machine goes into a file: the same figure has the same bytes.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": "msabench", "Producer": None, "CreationDate": None},
}


def save_figure(figure: Figure, info_frame: pd.DataFrame, stem: Path) -> tuple[Path, Path, Path]:
    """Writes ``stem.png``, ``stem.pdf`` and ``stem.csv``, each whole or not at all, and returns their paths.

    Args:
        info_frame: what is drawn (``CurvesInfo.frame()``), in the units of the store: fractions, not percent.
        stem: path without an extension; a dot in its name is kept. The folder must exist.
    """
    png, pdf, csv = (stem.with_name(f"{stem.name}.{extension}") for extension in ("png", "pdf", "csv"))
    write_bytes(png, _rendered(figure, "png"))
    write_bytes(pdf, _rendered(figure, "pdf"))
    write_bytes(csv, info_frame.to_csv(index=False, lineterminator="\n").encode())
    return png, pdf, csv


def _rendered(figure: Figure, extension: str) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=extension, dpi=DPI, metadata=_METADATA[extension])
    return buffer.getvalue()
