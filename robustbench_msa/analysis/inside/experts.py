"""What experts stand for: RIDER-MoE's semantic checks (C.4, figure 5), and correlations with the true factors of synth.

The checks need masked views, which no cell stores, so ``dir_checks`` takes a model and data. Symbols: y_e^(p) the
output of expert e on view p in {0, -T, -A, -V}; pi^(0) the routing weights of the full view; i a sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.analysis.inside.cells import Inside, Line, each_point, frame_of
from robustbench_msa.analysis.inside.grouped import Estimate, correlations, means
from robustbench_msa.analysis.inside.samples import Samples
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.data.synth import SynthModel, labels_of, true_factors
from robustbench_msa.models.rider_moe import EXPERTS, R, RIDERMoE, S

EXTRAS = ("experts", "unimodal")
FACTORS: Mapping[str, str] = {
    "r": "redundant",
    "u_T": "unique",
    "u_A": "unique",
    "u_V": "unique",
    "b_T b_A b_V": "synergistic",
}
"""The factors that synth's labels are made of, and which part of the information each is."""
_AT_ONCE = 256  # samples; memory only


def dir_checks(model: RIDERMoE, batch: Batch) -> pd.DataFrame:
    """RIDER-MoE's four semantic checks on a batch (eq. 55 to 58), one row each: check, value, low, high, better.

    delta_U of each modality and their average, Var_R, Off_S (lower is better) and residual_correlation (higher is
    better), with 95 % intervals over the batch's groups. Corrupt the batch first to see them under a stress.

    Args:
        model: in eval mode, with five experts; those trained without masked views can be checked too.
        batch: labelled samples on the model's device; groups default to every sample by itself.

    Raises:
        InputError: another model, a single expert, experts of classes, training mode, or no labels.
    """
    if not isinstance(model, RIDERMoE) or model.config.single_expert:
        raise InputError(
            "dir_checks: expected a RIDER-MoE with its five experts; the checks compare their masked views"
        )
    if model.spec.num_classes:
        raise InputError("dir_checks: expected experts that give scores, these give logits of classes")
    if model.training or batch.labels is None:
        raise InputError("dir_checks: expected a model in eval mode (model.eval()) and a batch with labels")
    views, pi = [], []
    with torch.no_grad():
        for start in range(0, len(batch), _AT_ONCE):
            part = batch.select(torch.arange(start, min(start + _AT_ONCE, len(batch)), device=batch.device))
            encoded = model.encode(part)
            views.append(model.masked_views(encoded, part.present))
            pi.append(model.fuse(encoded, part.present).extras["routing"])
    y_e, weights = (torch.cat(parts).double().cpu().numpy() for parts in (views, pi))
    return semantic_checks(y_e, weights, batch.labels.double().cpu().numpy(), _groups(batch))


def semantic_checks(y_e: Array, pi: Array, y: Array, group: Any) -> pd.DataFrame:
    """The table of ``dir_checks`` from y_e^(p) ``(N, 4, 5)``, pi^(0) ``(N, 5)``, y and group ``(N,)``.

    Views in the order 0, -T, -A, -V. Var is the sample variance over them (C.4): by 3, where the loss, eq. 46, has 4.
    """
    moved = np.abs(y_e[:, :1, :3] - y_e[:, 1:, :3])  # (N, 3 views, 3 experts): |y_Um^(0) - y_Um^(p)|
    keeps_m = 1 - np.eye(3)  # the views of P_m without 0: those that mask another modality
    delta_u = (moved * keeps_m).sum(axis=1) / 2  # (N, 3)  eq. 55
    var_r = y_e[:, :, R].var(axis=1, ddof=1)  # (N,)  eq. 56
    off_s = np.abs(y_e[:, 1:, S]).mean(axis=1)  # (N,)  eq. 57
    terms = np.column_stack([delta_u, delta_u.mean(axis=1), var_r, off_s])
    names = ("delta_U_T", "delta_U_A", "delta_U_V", "delta_U_avg", "Var_R", "Off_S")
    routed = (pi * y_e[:, 0])[:, S]
    residual = y - ((pi * y_e[:, 0]).sum(axis=1) - routed)  # delta, eq. 49-50
    group = np.unique(group, return_inverse=True)[1]
    fit = correlations(routed[:, None], residual, group)  # eq. 58
    rows = _checks(names, means(terms, group), "lower") + _checks(("residual_correlation",), fit, "higher")
    return pd.DataFrame(rows)


def factor_table(folder: str | Path, models: Collection[str] = ()) -> pd.DataFrame:
    """Pearson's correlation of every expert's output with every true factor of ``synth``, at every point of a run.

    Columns: WHO, WHERE, output (an expert, a modality's own prediction, or "prediction"), factor, part (redundant,
    unique, synergistic), correlation and the ends of its 95 % interval. Factors are independent of each other, so the
    squares of a row add up to at most 1 but for sampling. The synergistic factor is the product of the three signs.

    Raises:
        InputError: the run is not on synth, or is on classes, or no model of it stores outputs of experts.
    """
    inside = Inside(folder, models)
    if inside.classes:
        raise InputError(f"{folder}: factors are compared with scores of experts; this run is on classes")
    sweeps = inside.sweeps(
        *EXTRAS, what="outputs of single experts", models="rider_moe (experts) and emoe (modalities) store them"
    )
    factors = _factors(inside)
    rows = each_point(sweeps, lambda line, samples: _factor_rows(line, samples, factors))
    return frame_of(rows, "output", "factor", "part", "correlation", "correlation_low", "correlation_high")


def _factors(inside: Inside) -> Array:
    """``(N, 5)`` in the order of FACTORS, for the samples of the run's split, and their labels as the sixth column."""
    about = inside.planned.manifest["dataset"]
    made = about.get("parameters", {})
    if made.get("generator") not in ("synth", "synth-explained"):
        raise InputError(f"factors: the true factors are known on synth only; this run is on {about['name']}")
    true = true_factors(int(made["seed"]), about["split"], made["sizes"])
    columns = [true["b_T"] * true["b_A"] * true["b_V"] if name.startswith("b_") else true[name] for name in FACTORS]
    return np.column_stack([*columns, labels_of(SynthModel.default().scale * true["y_star"])])


def _factor_rows(line: Line, samples: Samples, factors: Array) -> Iterator[dict[str, Any]]:
    mine = np.tile(factors, (samples.n_seeds, 1))  # cells hold the samples in the split's order
    if len(mine) != len(samples.y_true) or not np.array_equal(mine[:, -1], samples.y_true):
        raise InputError("factors: the run's labels are not those of its synth seed and sizes; run it again")
    named = _outputs(line, samples)
    for i, (factor, part) in enumerate(FACTORS.items()):
        found = correlations(np.stack(list(named.values()), axis=1), mine[:, i], samples.group)
        for j, output in enumerate(named):
            columns = found.columns(j, "correlation", "correlation_low", "correlation_high")
            yield {"output": output, "factor": factor, "part": part, **columns}


def _outputs(line: Line, samples: Samples) -> dict[str, Array]:
    found: dict[str, Array] = {}
    if "experts" in samples.extras:
        y_e = samples.extras["experts"]
        known = line.base == "rider_moe" and y_e.shape[1] == len(EXPERTS)
        found |= {EXPERTS[i] if known else f"expert {i + 1}": y_e[:, i] for i in range(y_e.shape[1])}
    if "unimodal" in samples.extras:
        found |= {f"{m} alone": samples.extras["unimodal"][:, i] for i, m in enumerate(MODALITIES)}
    return {**found, "prediction": samples.y_pred}


def _checks(names: tuple[str, ...], found: Estimate, better: str) -> list[dict[str, Any]]:
    return [
        {"check": name, **found.columns(i, "value", "low", "high"), "better": better} for i, name in enumerate(names)
    ]


def _groups(batch: Batch) -> Any:
    return np.asarray(batch.groups) if batch.groups is not None else np.arange(len(batch))
