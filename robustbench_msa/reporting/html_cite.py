"""How to cite what the HTML report shows: the protocol by name and hash, with version, data and seeds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from robustbench_msa.evaluation.cells import Request


class Text(NamedTuple):
    """A protocol, or what stands for one. sha256: of the text as UTF-8."""

    name: str
    text: str
    sha256: str


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def protocols_of(manifests: Sequence[dict[str, Any]], requests: Sequence[Request]) -> tuple[Text, ...]:
    """The named protocols; without any, the requests, a line each, stand for one."""
    found = {(str(name), str(text)) for manifest in manifests for name, text in manifest["protocols"].items()}
    if not found:
        lines = "\n".join(f"{request.stress.label} {request.grid}" for request in requests)
        found = {("custom", f"{lines}\n")}
    return tuple(Text(name, text, sha256(text)) for name, text in sorted(found))


def cite(
    protocols: Sequence[Text], manifests: Sequence[dict[str, Any]], requests: Sequence[Request], runtime: pd.DataFrame
) -> tuple[str, str]:
    """A sentence, and a BibTeX entry."""
    dataset = manifests[0]["dataset"]
    version = one_of(m.get("versions", {}).get("msabench") for m in manifests)
    commit = one_of(m.get("commit") for m in manifests)
    named = "; ".join(f"{p.name} (sha256 {p.sha256})" for p in protocols)
    drawn = sorted({seed for request in requests for seed in request.drawn if seed is not None})
    abouts = [about for m in manifests for about in m["checkpoints"].values() if isinstance(about, dict)]
    trained = sorted({str(about["train_seed"]) for about in abouts if about.get("train_seed") is not None})
    seeds = f"corruption seeds {', '.join(map(str, drawn)) or 'none'}"
    seeds += f"; training seeds {', '.join(trained)}" if trained else ""
    made = "msabench" + ("" if version == "not installed" else f" {version}")
    made += f", commit {commit}" if commit != "unknown" else ""
    data = f"{dataset['name']}, {dataset['split']} split (fingerprint {dataset['data']})"
    plural = "protocols" if len(protocols) > 1 else "protocol"
    text = f"Robustness {plural} {named}; {made}; data {data}; {seeds}."
    year = next(iter(re.findall(r"^\d{4}", span_of(runtime["finished"]))), "")
    key = re.sub(r"[^A-Za-z0-9]+", "-", f"msabench-{'-'.join(p.name for p in protocols)}-{protocols[0].sha256[:8]}")
    fields = {
        "author": "{The msabench developers}",
        "title": f"{{{_tex(' and '.join(p.name for p in protocols))}: a robustness {plural} of msabench}}",
        "year": f"{{{year}}}" if year else "",
        "note": "{" + _tex(f"Protocol {named}; {made}; data {data}; {seeds}") + "}",
    }
    body = "".join(f"  {name} = {value},\n" for name, value in fields.items() if value)
    return text, f"@misc{{{key},\n{body}}}\n"


def _tex(text: str) -> str:
    """Text in a field of BibTeX: special characters escaped, braces dropped.

    >>> _tex("a_b {50 %}")
    'a\\\\_b 50 \\\\%'
    """
    return re.sub(r"([_%&#$])", r"\\\1", re.sub(r"[{}\\~^]", "", text))


def one_of(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) if value is not None else "unknown" for value in values))


def span_of(finished: pd.Series) -> str:
    """From the first to the last cell."""
    there = sorted(map(str, finished.dropna()))
    return " to ".join(dict.fromkeys([there[0], there[-1]])) if there else ""
