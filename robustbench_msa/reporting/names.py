"""How models, stresses, axes, metrics and numbers are written in tables and figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from corruptions import STRESSORS
from robustbench_msa.analysis.metrics import Metric

MODELS: Mapping[str, str] = {
    "qa_moe": "QA-MoE",
    "rider_moe": "RIDER-MoE",
    "ca_moe": "CA-MoE",
    "emoe": "EMOE",
    "text_moe": "TEXT",
    "late_fusion": "Late fusion",
    "tfn": "TFN",
    "lmf": "LMF",
    "mult": "MulT",
    "misa": "MISA",
    "text_only": "Text only",
    "audio_only": "Audio only",
    "vision_only": "Vision only",
}
DATASETS: Mapping[str, str] = {
    "mosi": "CMU-MOSI",
    "mosei": "CMU-MOSEI",
    "sims": "CH-SIMS",
    "simsv2": "CH-SIMS v2",
    "mintrec": "MIntRec",
    "mintrec-binary": "MIntRec (emotion or goal)",
    "iemocap": "IEMOCAP",
    "iemocap4": "IEMOCAP (four emotions)",
    "iemocap6": "IEMOCAP (six emotions)",
    "synth": "the synthetic dataset",
    "synth-explained": "the synthetic dataset with explanations",
    "synth-classes": "the synthetic dataset in three classes",
}
STRESSES: Mapping[str, str] = {
    "noise": "Noise",
    "missing": "Missing modalities",
    "conflict": "Conflict",
    "missing-fixed": "Available modalities",
    "missing-random": "Randomly missing",
    "noise-lambda": "Noise (λ)",
    "spectrum": "Spectrum",
    "conflict-control": "Conflict (control)",
    "frame-missing": "Missing frames",
    "burst": "Burst",
    "misalign": "Misalignment",
    "drift": "Drift",
    "imbalanced": "Imbalanced missing",
    "correlated": "Correlated missing",
    "asr": "ASR errors",
    "worst-case": "Worst case",
}
AXES: Mapping[str, str] = {
    "m": "missing rate m",
    "eta": "missing rate η",
    "rho": "noise level ρ",
    "lambda": "noise level λ",
    "c": "conflict rate c",
    "r": "frame missing rate r",
    "s": "severity s",
}
REFERENCES = ("oracle", "chance")
"""Rows that a model is compared with: never ranked, drawn in their own styles, last in every table."""

DEFAULT_METRICS: Mapping[str, tuple[str, ...]] = {
    "mosi": ("acc2_non0", "mae", "corr"),
    "sims": ("acc2", "mae", "corr"),
    "classification": ("acc", "f1_macro"),
    "legacy_swapped_f1": ("f1_has0", "f1_non0"),
}
INTERVAL = "95 % bootstrap intervals over groups (videos)"
NULL = "—"


def stress_title(stress: str, params: str = "") -> str:
    """
    >>> stress_title("missing-random", "told=true"), stress_title("my-stress")
    ('Randomly missing (told=true)', 'my-stress')
    >>> stress_title("noise+missing")
    'Noise, then missing modalities'
    """
    first, *then = (STRESSES.get(part, part) for part in stress.split("+"))
    title = ", then ".join([first, *(name if name[:2].isupper() else name[:1].lower() + name[1:] for name in then)])
    return f"{title} ({params.replace(',', ', ')})" if params else title


def axis_labels(stress: str, n: int) -> tuple[str, ...]:
    """What stands at a stress's n severity axes.

    >>> axis_labels("spectrum", 2), axis_labels("my-stress", 1)
    (('noise level λ', 'missing rate η'), ('severity',))
    """
    axes = tuple(axis for part in stress.split("+") if part in STRESSORS for axis in STRESSORS[part].axes)
    if len(axes) != n:
        return ("severity", "second severity")[:n]
    return tuple(AXES.get(axis.symbol, f"severity {axis.symbol}") for axis in axes)


def condition_label(condition: str) -> str:
    """An available set in capitals.

    >>> condition_label("t+a")
    'TA'
    """
    return condition.replace("+", "").upper()


def oracle_role(stresses: Collection[str]) -> str:
    """What the oracle is. It does not know which samples were swapped: under conflict it bounds nothing.

    >>> oracle_role(["noise", "missing"]), oracle_role(["conflict"])
    ('bound', 'strong reference')
    """
    under_conflict = [stress.startswith("conflict") for stress in stresses]
    if not any(under_conflict):
        return "bound"
    return "strong reference" if all(under_conflict) else "bound; under conflict: strong reference"


def error_name(profile: str) -> str:
    """What the mean error of samples is called.

    >>> error_name("mosi"), error_name("classification")
    ('MAE', 'error rate')
    """
    return "error rate" if profile == "classification" else "MAE"


def flip_name(profile: str) -> str:
    """What of a prediction flips.

    >>> flip_name("mosi"), flip_name("classification")
    ('sign', 'class')
    """
    return "class" if profile == "classification" else "sign"


def metric_label(metric: Metric) -> str:
    """The metric with an arrow to its better side."""
    return f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"


def is_percent(metric: Metric) -> bool:
    return metric.unit == "fraction"


def format_value(metric: Metric, value: float | None, decimals: int | None = None) -> str:
    """A score in print: fractions as percent; a dash for null. decimals: of what is printed.

    >>> from robustbench_msa.analysis.metrics import get_profile
    >>> mosi = get_profile("mosi")
    >>> [format_value(mosi.metric("acc7"), value) for value in (0.4567, None)], format_value(mosi.metric("mae"), 0.9)
    (['45.7', '—'], '0.900')
    """
    if value is None:
        return NULL
    scale, dropped = (100, 2) if is_percent(metric) else (1, 0)
    digits = metric.decimals - dropped if decimals is None else decimals
    return f"{round(scale * value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.0"


def format_interval(metric: Metric, low: float | None, high: float | None) -> str:
    """``[lo, hi]`` as the value is printed; empty when there is none."""
    if low is None or high is None:
        return ""
    return f"[{format_value(metric, low)}, {format_value(metric, high)}]"
