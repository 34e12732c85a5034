"""Who is drawn in colour where there are more lines than anyone can tell apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from corruptions import InputError
from robustbench_msa.reporting import names
from robustbench_msa.reporting.entries import Entry, find_entries

_IDENTITY = ("model", "recipe", "train_seed", "checkpoint")
MAX_COLOURED = 6
"""As many lines as there are colours that stand out on white; the others are grey."""


def coloured(who: Sequence[Entry], wanted: Sequence[str] | None = None) -> tuple[Entry, ...]:
    """The lines to draw in colours, in the order of ``who``; references are apart and never among them.

    Args:
        wanted: names of lines (``fits``). Default: all of them, or of more than MAX_COLOURED first the reader's own
            models, then one line per model in the order of names.MODELS, trained clean rather than not.

    Raises:
        InputError: a name that no line has, or more than MAX_COLOURED lines asked for.
    """
    models = [entry for entry in who if not entry.is_reference]
    if wanted:
        found = named(models, wanted)
        if len(found) > MAX_COLOURED:
            raise InputError(
                f"--model: {len(found)} lines were asked for ({', '.join(line_name(e) for e in found)}); at most "
                f"{MAX_COLOURED} can be told apart, name fewer, or one recipe as in {line_name(found[0])}"
            )
        return found
    first = sorted(models, key=_place)[:MAX_COLOURED]
    return tuple(entry for entry in models if entry in first)


def alone(who: Sequence[Entry], stresses: Collection[str] = ()) -> tuple[Entry, ...]:
    """The lines as they are labelled when they are all that is shown, in the order of tables."""
    return find_entries(pd.DataFrame([entry[:4] for entry in who], columns=list(_IDENTITY)), stresses)


def named(who: Sequence[Entry], wanted: Sequence[str]) -> tuple[Entry, ...]:
    """Every line that one of the names fits, in the order of ``who``.

    Raises:
        InputError: a name that fits no line.
    """
    for text in wanted:
        if not any(fits(entry, text) for entry in who):
            have = ", ".join(dict.fromkeys(line_name(entry) for entry in who)) or "none"
            raise InputError(f"--model {text}: no such line in these results; there is {have}")
    return tuple(entry for entry in who if any(fits(entry, text) for text in wanted))


def fits(entry: Entry, text: str) -> bool:
    """Is a line meant by ``model``, ``model/recipe`` or ``model/recipe/training seed``?

    >>> line = Entry("qa_moe", "clean", 1111, None, "QA-MoE", "QA-MoE", 0)
    >>> [fits(line, text) for text in ("qa_moe", "qa_moe/clean/1111", "qa_moe/spectrum", "qa")]
    [True, True, False, False]
    """
    parts = text.split("/")
    return parts == _parts(entry)[: len(parts)]


def line_name(entry: Entry) -> str:
    """What to type for a line: as much as tells it apart from other recipes and training seeds.

    >>> line_name(Entry("qa_moe", "clean", None, None, "QA-MoE", "QA-MoE", 0))
    'qa_moe/clean'
    """
    return "/".join(_parts(entry))


def _parts(entry: Entry) -> list[str]:
    seed = "" if entry.train_seed is None else str(entry.train_seed)
    return list(filter(None, (entry.model, entry.recipe, seed)))


def _place(entry: Entry) -> tuple[bool, int, int, int]:
    """Models of this package by their place in names.MODELS, after all others; their second lines after all firsts."""
    order = list(names.MODELS)
    base = entry.model.removesuffix("-tokens")
    ours = base in order
    return entry.recipe not in ("", "clean"), entry.train_seed or 0, order.index(base) if ours else -1, entry.order
