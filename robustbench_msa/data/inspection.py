"""What a file holds, found out without running it and without insisting that it is right.

``inspect_path`` gives the facts, also of files that ``load_dataset`` refuses, with the reason why it does; the command
line shows them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from corruptions import MODALITIES, InputError
from robustbench_msa.data import arrays, iemocap, mintrec, mmsa, stored
from robustbench_msa.data.array_facts import (
    FieldFacts,
    LabelFacts,
    TokenFacts,
    field_facts,
    label_facts,
    numbers,
    stated_lengths,
    swapped,
    token_facts,
)
from robustbench_msa.data.dataset import SPLITS, Dataset, group_of
from robustbench_msa.data.kinds import KINDS, kind_of
from robustbench_msa.data.published import Likeness, exchanged, likeness
from robustbench_msa.data.safe_pickle import load

Fields = Mapping[Any, Any]

SIDE_FIELDS = ("id", "raw_text", "annotations", "groups")
_LABELS = "regression_labels"


@dataclass(frozen=True)
class SplitFacts:
    """One split. key: how the file calls it; groups: distinct videos; repeated: ids that come more than once."""

    name: str
    key: str
    samples: int
    groups: int
    repeated: int
    fields: tuple[FieldFacts, ...]
    labels: tuple[LabelFacts, ...]
    tokens: TokenFacts | None


@dataclass(frozen=True)
class Inspection:
    """All that is found in a path.

    kind: a phrase; likely: the published dataset it is or is like; findings: one line each on what is odd; refusal: why
    ``load_dataset`` would not read it (None: it would); notes: what it would repair or remark; next: commands to type.
    """

    path: str
    bytes: int
    kind: str
    splits: tuple[SplitFacts, ...]
    likely: Likeness | None
    findings: tuple[str, ...]
    refusal: str | None
    notes: tuple[str, ...]
    next: tuple[str, ...]


def inspect_path(path: Path) -> Inspection:
    """The facts of a file or folder of any kind in ``kinds.KINDS``.

    Raises:
        InputError: nothing that could be looked into: no dataset at all, truncated, or refused by the pickle reader.
    """
    found = _Found(path, kind_of(path))
    splits = tuple(_split(name, *found.splits[name]) for name in SPLITS if name in found.splits)
    likely = _likely(found, splits)
    name = _name(path, found, likely, splits)
    notes, refusal = found.try_reading(name)
    findings = tuple(found.findings) + tuple(_findings(found.splits, splits, likely))
    what = found.title or KINDS[found.kind]
    following = () if refusal else tuple(_next(path, name, found, splits))
    return Inspection(str(path), _bytes(path), what, splits, likely, findings, refusal, notes, following)


class _Found:
    """The raw content of a path as splits of fields under MMSA's names, and the reader that would be used."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind, self.title = path, kind, ""
        self.splits: dict[str, tuple[str, Fields]] = {}
        self.findings: list[str] = []
        self.classified = kind in ("mintrec", "iemocap")
        self.data: object = None
        self.loaded: Dataset | None = None
        self.refusal: str | None = None
        getattr(self, f"_open_{'arrays' if kind in ('npz', 'hdf5') else kind}")()

    def try_reading(self, name: str) -> tuple[tuple[str, ...], str | None]:
        """Notes of the reader, or why it refuses."""
        try:
            loaded = self._read(name)
        except InputError as error:
            return (), str(error)
        return loaded.notes, None

    def _read(self, name: str) -> Dataset:
        if self.loaded is not None:
            return self.loaded
        if self.refusal is not None:
            raise InputError(self.refusal)
        return mmsa.dataset_of(self.path, self.data, name)

    def _open_pickle(self) -> None:
        self.data = load(self.path)
        if isinstance(self.data, tuple):
            self._open_tuple(self.data)
        elif isinstance(self.data, dict):
            self.title = "a pickle, MMSA layout"
            keys = {split: mmsa.split_key(self.data, split) for split in SPLITS}
            splits = {s: (k, self.data[k]) for s, k in keys.items() if k is not None and isinstance(self.data[k], dict)}
            self.splits = splits
            self._look_for_other_layouts()
        else:
            self.title = f"a pickle of a {type(self.data).__name__}"

    def _open_tuple(self, data: tuple[Any, ...]) -> None:
        self.title = f"a pickle of a tuple of {len(data)}"
        if len(data) == 6:
            self.kind, self.classified = "iemocap", True
            self._open_iemocap()
        elif len(data) == 7:
            self.title += ", as GCNet's labels of CMU-MOSI; only IEMOCAP's are read from this layout"

    def _look_for_other_layouts(self) -> None:
        fields = next((f for _, f in self.splits.values()), {})
        if "labels" in fields and _LABELS not in fields:
            self.title = "a pickle, MultiBench layout"
            line = "labels stand under 'labels', in MMSA's layout under 'regression_labels' (N,)"
            self.findings.append(f"{line}; MultiBench also pads at the front and has no lengths")
        if not self.splits:
            self.title = "a pickle, no layout known here"

    def _open_arrays(self) -> None:
        with ExitStack() as stack:
            entries = arrays.open_entries(self.path, stack)
            self.classified = "classes" in entries
            for entry, read in entries.items():
                split, _, field = entry.partition("/")
                if split in SPLITS:
                    fields = self.splits.setdefault(split, (split, {}))[1]
                    assert isinstance(fields, dict)
                    fields |= _renamed(field, read())
        self._keep(lambda: arrays.read_arrays(self.path, "mosi"))

    def _open_stored(self) -> None:
        header = stored.read_header(self.path)
        self.title = f"{KINDS['stored']}, {header['name']}"
        self._keep(lambda: stored.read_stored(self.path))
        self._from_dataset()
        if self.loaded is not None and self.loaded.fingerprint != header["fingerprint"]:
            self.findings.append("its content is not what was converted (other fingerprint): damaged, or edited since")

    def _open_mintrec(self) -> None:
        self._keep(lambda: mintrec.read_mintrec(self.path))
        self._from_dataset()
        if self.loaded is None:
            for split, table in mintrec.TABLES.items():
                try:
                    clips = mintrec.read_table(self.path / table)
                except InputError as error:
                    self.findings.append(str(error))
                    continue
                ids = {"id": [clip.id for clip in clips], "groups": [clip.group for clip in clips]}
                self.splits[split] = (table, ids)

    def _open_iemocap(self) -> None:
        self.title = self.title or KINDS["iemocap"]
        name = iemocap_name(self.path)
        self._keep(lambda: iemocap.read_iemocap(self.path, name))
        self._from_dataset()

    def _keep(self, read: Any) -> None:
        try:
            self.loaded = read()
        except InputError as error:
            self.refusal = str(error)

    def _from_dataset(self) -> None:
        if self.loaded is not None:
            self.classified = self.loaded.profile == "classification"
            self.splits = {split: (split, _fields_of(self.loaded, split)) for split in SPLITS}


def iemocap_name(path: Path) -> str:
    """iemocap4 or iemocap6, by the name of the labels' file; a folder with both is taken for iemocap4."""
    six = (path / iemocap.FILES["iemocap6"]).is_file() and not (path / iemocap.FILES["iemocap4"]).is_file()
    return "iemocap6" if six or "6way" in path.name else "iemocap4"


def _renamed(field: str, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """A field of the arrays layout under MMSA's names."""
    if field in ("lengths", "present") and x.ndim == 2 and x.shape[1] == 3:
        return {f"{m}_{field}": x[:, i] for i, m in enumerate(MODALITIES)}
    own = {"ids": "id", "labels": _LABELS, **{f"labels_{m}": mmsa.UNIMODAL[m] for m in MODALITIES}}
    return {own.get(field, field): x}


def _fields_of(dataset: Dataset, split: str) -> dict[str, Any]:
    batch = dataset.splits[split]
    assert batch.labels is not None
    fields: dict[str, Any] = {"id": list(batch.ids), "groups": list(batch.groups), _LABELS: batch.labels.numpy()}
    for i, m in enumerate(MODALITIES):
        fields["tokens" if m == "text" and batch.has_token_text else m] = batch.features(m).numpy()
        fields |= {f"{m}_lengths": batch.lengths(m).numpy(), f"{m}_present": batch.present[:, i].numpy()}
    return fields | {mmsa.UNIMODAL[m]: x.numpy() for m, x in dataset.unimodal_labels.get(split, {}).items()}


def _split(name: str, key: str, fields: Fields) -> SplitFacts:
    ids = [i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in _list(fields.get("id"))]
    groups = [str(g) for g in _list(fields.get("groups"))] or [group_of(i) for i in ids]
    samples = len(ids) or max(
        (len(x) for m in MODALITIES if (x := numbers(fields.get(m))) is not None and x.ndim), default=0
    )
    facts = [_field(fields, str(field)) for field in fields if field in (*MODALITIES, "tokens", "text_bert")]
    keys = (_LABELS, *mmsa.UNIMODAL.values())
    labels = tuple(found for key in keys if (found := label_facts(key, fields.get(key))) is not None)
    repeated = sum(count - 1 for count in Counter(ids).values())
    tokens = token_facts(fields.get("text_bert"))
    return SplitFacts(name, key, samples, len(set(groups)), repeated, tuple(facts), labels, tokens)


def _field(fields: Fields, name: str) -> FieldFacts:
    modality = "text" if name in ("tokens", "text_bert") else name
    if name == "text_bert":
        value = fields[name]
        return FieldFacts(name, tuple(getattr(value, "shape", ())), str(getattr(value, "dtype", type(value).__name__)))
    return field_facts(name, fields[name], stated_lengths(fields, modality), fields.get(f"{modality}_present"))


def _list(value: Any) -> list[Any]:
    found = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    return list(found) if isinstance(found, (list, tuple)) else []


def _limit(splits: tuple[SplitFacts, ...]) -> float:
    return max((max(abs(lab.low), abs(lab.high)) for s in splits for lab in s.labels[:1]), default=0.0)


def _dims(splits: tuple[SplitFacts, ...]) -> tuple[int, int]:
    shapes = {f.name: f.shape for s in splits[:1] for f in s.fields}
    audio, vision = (shapes.get(m, ()) for m in MODALITIES[1:])
    return (audio[2] if len(audio) == 3 else 0, vision[2] if len(vision) == 3 else 0)


def _likely(found: _Found, splits: tuple[SplitFacts, ...]) -> Likeness | None:
    if len(splits) < len(SPLITS) or found.kind == "iemocap":
        return None
    a, b, c = (s.samples for s in splits)
    unimodal = any(len(s.labels) > 1 for s in splits)
    return likeness((a, b, c), _dims(splits), None if found.classified else _limit(splits), unimodal)


def _name(path: Path, found: _Found, likely: Likeness | None, splits: tuple[SplitFacts, ...]) -> str:
    """What to type after --dataset."""
    if found.kind == "stored" and found.loaded is not None:
        return found.loaded.name
    if found.kind == "iemocap":
        return iemocap_name(path)
    if found.kind == "mintrec":
        return "mintrec"
    if likely is not None:
        return likely.name
    small = bool(splits) and not found.classified and 0 < _limit(splits) <= 1
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:40] or "my-data"
    if small:
        return "sims" if found.kind == "pickle" else f"sims-{stem}"
    return f"my-{stem}" if stem.lower().startswith(("sims", "ch-sims", "mintrec", "iemocap", "synth")) else stem


def _findings(
    raw: Mapping[str, tuple[str, Fields]], splits: tuple[SplitFacts, ...], likely: Likeness | None
) -> list[str]:
    lines = [f"{split} is missing" for split in SPLITS if splits and split not in raw]
    for s in splits:
        lines += [f"{s.name}: {line}" for line in _oddities(s)]
        if (why := swapped(raw[s.name][1])) is not None:
            lines.append(f"{s.name}: audio_lengths and vision_lengths look swapped: {why}")
    if splits and (title := exchanged(_dims(splits))) is not None:
        lines.append(f"audio and vision have the dimensions of {title}'s vision and audio: are the two exchanged?")
    ids = {s: {group_of(str(i)) for i in _list(fields.get("id"))} for s, (_, fields) in raw.items()}
    for split in ("valid", "test"):
        if shared := len(ids.get("train", set()) & ids.get(split, set())):
            lines.append(f"{split}: {shared} groups (videos) are also in train")
    if likely is not None and likely.match != "exact" and len(splits) == len(SPLITS):
        here = "/".join(str(s.samples) for s in splits)
        lines.append(f"{likely.title} has {'/'.join(map(str, likely.sizes))} clips, this has {here}")
    return lines


def _oddities(s: SplitFacts) -> list[str]:
    lines = [f"{s.repeated} ids come more than once"] if s.repeated else []
    for f in s.fields:
        bad = [f"{n:,} {what}" for n, what in ((f.nan, "NaN"), (f.minus_inf, "-inf"), (f.plus_inf, "+inf")) if n]
        lines += [f"{f.name} holds {' and '.join(bad)} (read as 0)"] if bad else []
        lines += [f"{f.name} is padded at the front (moved to the end when read)"] if f.padding == "front" else []
        lines += [f"{f.name} is padded at both sides"] if f.padding == "both" else []
        lines += [f"{f.name}: {f.empty} samples are all zero"] if f.empty and f.present in (None, 1.0) else []
        if f.lengths is not None and f.lengths.beyond:
            lines.append(f"{f.name}: {f.lengths.beyond} samples have values beyond their length")
        if f.lengths is not None and f.lengths.too_long:
            lines.append(f"{f.name}: {f.lengths.too_long} lengths exceed the steps there are")
    for lab in s.labels:
        lines += [f"{lab.key}: {lab.nan} are NaN or infinite"] if lab.nan else []
    if s.tokens is not None and not s.tokens.sound:
        t = s.tokens
        lines.append(
            f"text_bert: of {t.samples} samples {t.prefix} have a mask of ones then zeros, {t.begin} begin with [CLS] "
            f"(101), {t.end} end with [SEP] (102)"
        )
    return lines


def _next(path: Path, name: str, found: _Found, splits: tuple[SplitFacts, ...]) -> list[str]:
    what = f"--dataset {name}{':fold=5' if found.kind == 'iemocap' else ''} --data {quote(str(path))}"
    lines = [
        f"msabench train --model late_fusion {what}",
        f"msabench run --model late_fusion {what} --stress missing --grid 0:0.8:0.2",
    ]
    if found.kind != "stored":
        lines.append(
            f"msabench convert {quote(str(path))} --dataset {name} --out {name}.msa   (once; then --data {name}.msa)"
        )
    if any(s.tokens is not None for s in splits):
        lines.append(
            "add --text tokens to read its token ids instead of its text features (models with a text backbone)"
        )
    return lines


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.lstat().st_size for p in sorted(path.rglob("*"))[:100_000] if p.is_file() and not p.is_symlink())
