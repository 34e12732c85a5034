"""Models that MMSA trained: ``mmsa:mult`` with the weights that ``MMSA_run`` saves.

The model is built by MMSA's own classes, installed beside msabench (extra ``mmsa``); nothing of MMSA is in here. What a
checkpoint does not hold is asked for after a second colon, ``mmsa:misa:pretrained=bert,dataset=mosei``, or stands in
``NAME.mmsa.json`` beside ``NAME.pth``. Dimensions and lengths come from the data.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa import plugins
from robustbench_msa.adapters.adapted import adapt
from robustbench_msa.adapters.card import read_card
from robustbench_msa.adapters.mmsa_facts import Facts, facts_of, typed_facts
from robustbench_msa.adapters.mmsa_package import RELEASE, Package, package
from robustbench_msa.adapters.mmsa_zoo import WITH_LENGTHS, Zoo
from robustbench_msa.adapters.programs import Program, undisturbed
from robustbench_msa.adapters.weights import Weights, put_weights, read_weights, sha256_of, weights_file
from robustbench_msa.models.contract import InputSpec, MSAModel

VERSION = 1
"""Raise it when outputs change for the same weights and the same MMSA."""

MODELS = ("tfn", "lmf", "mfn", "ef_lstm", "lf_dnn", "mult", "graph_mfn", "misa", "self_mm", "mmim", "mfm")
SIMS_MODELS = ("mtfn", "mlmf", "mlf_dnn")
"""Those for which MMSA has settings for CH-SIMS alone."""
OTHERS = {
    "bert_mag": "it fetches bert-base-uncased from the hub, whatever it is told",
    "tfr_net": "it fetches bert-base-uncased from the hub, and wants its own missing masks",
    "mctn": "it runs on CUDA alone, and wants labels",
}
ENCODERS = ("misa", "self_mm", "mmim")
"""Models with a BERT in them, whatever the settings say."""
FIRST_SEED = 1111  # of MMSA_run's default seeds
OPTIONS = ("use_bert", "use_finetune", "need_normalized", "need_data_aligned", "need_model_aligned")
"""Settings that any model may be given, beside those that MMSA has for it."""


def find(text: str) -> Program:
    """The program behind ``mmsa:NAME`` or ``mmsa:NAME:key=value,key=value``. MMSA is imported here.

    Raises:
        InputError: MMSA is not installed; a model it does not have, or that cannot be run; an unknown key.
    """
    name, _, rest = text.partition(":")[2].partition(":")
    name = name.lower()
    if name in OTHERS:
        raise InputError(f"--model {text}: MMSA's {name} cannot be run from here: {OTHERS[name]} (docs/mmsa.md)")
    if name not in (known := (*MODELS, *SIMS_MODELS)):
        raise InputError(f"--model {text}: no model {name!r} of MMSA{did_you_mean(name, known)}; {', '.join(known)}")
    typed = typed_facts(text, rest)
    plugins.announce("model", text)
    with undisturbed():
        installed = package(text)
    if not installed.is_release:
        _say(
            f"the installed MMSA {installed.version} is not the release {RELEASE} (its model files differ): the same "
            "weights may give other outputs"
        )
    build = partial(_build, text, name, typed, installed)
    return Program(text, build, installed.digest, f"mmsa_{name}", installed.file)


def _build(text: str, name: str, typed: Facts, mmsa: Package, checkpoint: Path | None, spec: InputSpec) -> MSAModel:
    """The model with the weights of ``checkpoint``, as a model of msabench."""
    if checkpoint is None:
        raise InputError(f"it needs weights: --checkpoint {name}-mosi.pth, as MMSA_run saves it")
    path = weights_file(checkpoint)
    facts = facts_of(path, name, typed)
    if facts.version and facts.version != mmsa.version:
        _say(f"{path} was trained with MMSA {facts.version}, and {mmsa.version} is installed: outputs may differ")
    weights = read_weights(path)
    settings = settings_of(name, facts, mmsa, spec, _steps(weights))
    seed = _seed(name, facts, path)
    torch.manual_seed(seed)  # as MMSA_run before it builds; the caller puts the global state back
    zoo = Zoo(mmsa.build(settings), settings)
    what = f"mmsa:{name} as MMSA {mmsa.version} sets it up for {settings['dataset_name']}"
    try:
        notes = put_weights(zoo.amio, _without_positions(weights), str(path), what)
    except InputError as error:
        raise InputError(f"{error} (other settings: dataset=NAME or config=FILE.json, see docs/mmsa.md)") from None
    zoo.msabench_about = about(name, mmsa, settings, seed if zoo.unsaved else None) | {"loaded": list(notes)}
    words = ("text_bert" if settings.get("use_bert") else "text", "audio", "vision", "audio_lengths", "vision_lengths")
    extras = {"unimodal": "unimodal"} if name in ("self_mm", *SIMS_MODELS) else None
    inputs = words if name in WITH_LENGTHS else words[:3]
    return adapt(zoo, inputs=inputs, output="M", extras=extras, name=f"mmsa_{name}", version=VERSION)


def settings_of(name: str, facts: Facts, mmsa: Package, spec: InputSpec, steps: int) -> Any:
    """MMSA's argument object: its own settings for a dataset, what the user says, and what its loader reads off data.

    Args:
        steps: of text, which only ef_lstm's weights depend on.
    """
    dataset = facts.dataset or mmsa.dataset_of(spec.dims)
    if not dataset:
        raise InputError(
            f"MMSA has no settings for audio of {spec.dims[1]} and vision of {spec.dims[2]} dims; say whose it was "
            f"trained with: mmsa:{name}:dataset=NAME, one of {', '.join(mmsa.datasets)}"
        )
    settings = mmsa.settings(name, dataset)
    known = (*settings, *OPTIONS)
    for key in facts.config or {}:
        if key not in known:
            raise InputError(f"config: MMSA's {name} has no setting {key[:80]!r}{did_you_mean(key, known)}")
    settings.update(facts.config or {})
    if name in ENCODERS:
        settings["use_bert"] = True
    settings.update(train_mode="regression", device=torch.device("cpu"), custom_feature=None)
    settings.update(feature_T="", feature_A="", feature_V="", seq_lens=[steps] * 3)
    settings["feature_dims"] = [768 if settings.get("use_bert") else spec.dims[0], *spec.dims[1:]]
    if settings.get("use_bert"):
        settings["pretrained"] = str(_encoder(name, facts))
    elif spec.dims[0] == 0:
        raise InputError(f"MMSA's {name} reads text as features; leave --text tokens away")
    return settings


def about(name: str, mmsa: Package, settings: Any, seed: int | None) -> dict[str, Any]:
    """For the manifest and the identity: who built the model, and from what settings."""
    left_out = ("featurePath", "device", "pretrained", "custom_feature", "feature_T", "feature_A", "feature_V")
    told: dict[str, Any] = {
        "model": name,
        "files_sha256": mmsa.digest,
        "settings": {key: value for key, value in settings.items() if key not in left_out},
    }
    if seed is not None:
        told["seed_of_unsaved_weights"] = seed
    if settings.get("use_bert"):  # its weights are in the checkpoint, the number of its heads is not
        told["encoder_config_sha256"] = sha256_of(Path(settings["pretrained"]) / "config.json")
    changed = "" if mmsa.is_release else ", not the files of the release"
    return {"adapter": f"MMSA {mmsa.version}{changed}", "mmsa": told}


def _encoder(name: str, facts: Facts) -> Path:
    if facts.pretrained is None:
        raise InputError(
            f"MMSA's {name} builds a text encoder; say the folder it starts from (its weights then come from the "
            f"checkpoint): mmsa:{name}:pretrained=DIR"
        )
    if not (facts.pretrained / "config.json").is_file():
        raise InputError(f"pretrained={facts.pretrained}: no such folder with a config.json; expected a saved BERT")
    return facts.pretrained


def _seed(name: str, facts: Facts, path: Path) -> int:
    """What the random state was set to before the model was built: MMSA's graph_mfn does not save all its weights."""
    seed = facts.seed if facts.seed is not None else read_card(path).get("train_seed")
    if seed is None and name == "graph_mfn":
        _say(
            f"{path}: MMSA saves no weights of graph_mfn's inner networks; they are drawn again as with training seed "
            f"{FIRST_SEED}; say the one it was trained with: mmsa:graph_mfn:seed=1115 for the last of MMSA's five"
        )
    return FIRST_SEED if seed is None else int(seed)


def _steps(weights: Weights) -> int:
    """Steps of text that ef_lstm normalises over, off its weights; 50 for all others, which do not keep it."""
    found = [len(x) for name, x in weights.tensors.items() if name.removeprefix("Model.") == "norm.weight"]
    return found[0] if found else 50


def _without_positions(weights: Weights) -> Weights:
    """Without the numbers 0, 1, ... that transformers before 4.31 saved as weights and later ones do not have."""
    kept = {name: x for name, x in weights.tensors.items() if not name.endswith("embeddings.position_ids")}
    dropped = ("left out the encoder's position_ids, which are no weights",) if len(kept) < len(weights.tensors) else ()
    return replace(weights, tensors=kept, notes=(*weights.notes, *dropped))


@cache
def _say(line: str) -> None:
    """A line on stderr, once a process."""
    print(f"msabench: {line}", file=sys.stderr)
