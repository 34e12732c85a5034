"""Small valid files of every kind, made by the project's own writers where it has them: what the fuzzer starts from.

    python fuzz/seeds.py FILE      writes {target: Seeds} as a pickle (one of our own, read by fuzz_readers.py alone)

Run in a process of its own, so that the process which fuzzes starts without threads or caches of this one.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

MODALITIES = ("text", "audio", "vision")
SIZES = {"train": 4, "valid": 2, "test": 3}
STEPS = {"text": (3, 4), "audio": (4, 3), "vision": (3, 2)}


@dataclass
class Seeds:
    """files: all files of a valid input, by their path in its folder. hostile: those that are mutated, one at a time.

    more: further contents of such a file, valid or nearly so.
    """

    files: dict[str, bytes]
    hostile: list[str]
    more: list[tuple[str, bytes]] = field(default_factory=list)


def one(name: str, *contents: bytes) -> Seeds:
    return Seeds({name: contents[0]}, [name], [(name, content) for content in contents[1:]])


def folder(root: Path, hostile: Callable[[str], bool] = lambda name: True) -> Seeds:
    files = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    return Seeds(files, [name for name in files if hostile(name)])


def split_of(split: str, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    x = {m: rng.normal(size=(n, t, d)).astype(np.float32) for m, (t, d) in STEPS.items()}
    return {
        **x,
        "lengths": np.stack([rng.integers(1, t + 1, n) for t, _ in STEPS.values()], axis=1),
        "present": np.ones((n, 3), bool),
        "labels": np.linspace(-3, 3, n).astype(np.float32),
        "ids": np.array([f"{split}{i // 2}$_${i}" for i in range(n)]),
        "groups": np.array([f"{split}{i // 2}" for i in range(n)]),
    }


def arrays() -> dict[str, Any]:
    return {f"{split}/{name}": x for split, n in SIZES.items() for name, x in split_of(split, n).items()}


def mmsa(tokens: bool = False) -> dict[str, Any]:
    def fields(split: str, n: int) -> dict[str, Any]:
        x = split_of(split, n)
        found = {m: x[m] for m in MODALITIES} | {"id": list(x["ids"]), "regression_labels": x["labels"]}
        found |= {f"{m}_lengths": x["lengths"][:, i].tolist() for i, m in enumerate(MODALITIES)}
        if tokens:
            mask = np.arange(3) < x["lengths"][:, :1]
            found["text_bert"] = np.stack([np.where(mask, 101, 0), mask, np.zeros((n, 3))], axis=1).astype(np.int64)
            found |= {"raw_text": ["a"] * n, "text_present": np.ones(n), "regression_labels_T": x["labels"]}
        return found

    return {split: fields(split, n) for split, n in SIZES.items()}


def pickles() -> Seeds:
    rest = {
        "set": {1, "a"},
        "frozen": frozenset([2.5]),
        "nested": [(1, (2, [None, True])), {"k": b"\xff"}],
        "c": 1 + 2j,
    }
    rest |= {"bytearray": bytearray(b"ab"), "scalar": np.float32(2), "dtype": np.dtype(">f4"), "big": 10**30}
    rest |= {"objects": np.array(["a", 1, None, [2]], object), "text": np.array(["a", "ü"]), "be": np.ones(2, ">i4")}
    tensor = {"x": torch.arange(6.0).reshape(2, 3)}
    contents = [pickle.dumps(rest, p) for p in (4, 2, 5, 0)]
    contents += [pickle.dumps(tensor, p) for p in (2, 4)] + [pickle.dumps(mmsa(), p) for p in (2, 5)]
    return one("data.pkl", *contents)


def npz(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays())
    return buffer.getvalue()


def npy() -> Seeds:
    def content(x: Any) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, x)
        return buffer.getvalue()

    odd = (np.ones((2, 3), ">f8", order="F"), np.array(["a", "ü"]), np.array([b"x"]), np.zeros((0, 2)), np.arange(3))
    return one("x.npy", content(np.ones((2, 3, 4), np.float32)), *map(content, odd))


def hdf5(**options: Any) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=options.pop("libver", "earliest")) as file:
        for name, x in arrays().items():
            strings = x.dtype.kind == "U"
            file.create_dataset(name, data=x.tolist() if strings else x, **({} if strings else options))
    return buffer.getvalue()


def mintrec(root: Path) -> Seeds:
    lines = {
        "train": ["S01\tE01\t1\tHello world\tGreet", "S01\tE01\t2\tThanks, hello\tThank"],
        "dev": ['S01\tE02\t1\the said "hello"\tCare'],
        "test": ["S02\tE01\t7\tworld\tAsk for help", "S02\tE03\t8\thello\tComfort"],
    }
    for split, clips in lines.items():
        (root / f"{split}.tsv").write_text("\n".join(["season\tepisode\tclip\ttext\tlabel", *clips]) + "\n", "utf-8")
    clips = ["_".join(line.split("\t")[:3]) for clips in lines.values() for line in clips]
    for name, d in (("video", 2), ("audio", 3), ("text", 4)):
        path = root / f"{name}_data" / f"{name}_feats.pkl"
        path.parent.mkdir()
        feats = {clip: np.ones((k + 1, d), np.float32) for k, clip in enumerate(clips)}
        path.write_bytes(
            pickle.dumps(feats if name != "video" else {c: [row[None] for row in x] for c, x in feats.items()})
        )
    words = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##o", "w"]
    (root / "vocab.txt").write_text("\n".join(words))
    return folder(root)


def iemocap(root: Path) -> Seeds:
    dialogues = ["Ses01F_impro01", "Ses02F_impro01", "Ses05F_impro01"]
    ids = {d: [f"{d}_F000", f"{d}_M000"] for d in dialogues}
    data = (ids, {d: [k % 4, 0] for k, d in enumerate(dialogues)}, {d: ["F", "M"] for d in dialogues})
    content = (*data, {d: ["a", "b"] for d in dialogues}, set(dialogues[:2]), set(dialogues[2:]))
    (root / "IEMOCAP_features_raw_4way.pkl").write_bytes(pickle.dumps(content, protocol=2))
    for name, d in (("deberta-large-4-UTT", 3), ("wav2vec-large-c-UTT", 2), ("manet_UTT", 2)):
        (root / "features" / name).mkdir(parents=True)
        for utterance in (u for part in ids.values() for u in part):
            np.save(root / "features" / name / f"{utterance}.npy", np.ones(d, np.float32))
    first = f"{dialogues[0]}_F000.npy"
    return folder(root, lambda name: name.endswith((".pkl", first)))


def stored(root: Path) -> Seeds:
    from robustbench_msa.data.arrays import read_arrays
    from robustbench_msa.data.stored import write_stored

    (root / "a.npz").write_bytes(npz(False))
    write_stored(read_arrays(root / "a.npz", "mine"), root / "mine.msa")
    return folder(root / "mine.msa", lambda name: not name.startswith(("valid", "test")))


def torch_files() -> tuple[Seeds, Seeds]:
    module = torch.nn.Linear(3, 2)
    state = module.state_dict()
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3, "best": 0.5, "name": "x"}

    def saved(value: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    odd = {"weight": state["weight"].half(), "bias": torch.nn.Parameter(state["bias"]), "n": torch.tensor(3)}
    legacy = {"_use_new_zipfile_serialization": False}
    values = (state, wrapped, odd)
    return one("w.pth", *(saved(v) for v in values)), one("w.pth", *(saved(v, **legacy) for v in values))


def checkpoint(root: Path) -> Seeds:
    """A trained late fusion of a few numbers."""
    from robustbench_msa.data.arrays import read_arrays
    from robustbench_msa.training.train import train

    (root / "a.npz").write_bytes(npz(False))
    small = {"hidden": 2, "fusion": 2}
    train("late_fusion", read_arrays(root / "a.npz", "mine"), out=root / "c", epochs=1, preset="synth", overrides=small)
    return folder(root / "c", lambda name: name in ("config.json", "model.safetensors"))


def backbone() -> Seeds:
    bert = {"model_type": "bert", "vocab_size": 120, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert |= {"intermediate_size": 8, "max_position_embeddings": 16, "pad_token_id": 0, "hidden_act": "gelu"}
    small = {"model_type": "distilbert", "vocab_size": 120, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    electra = {**bert, "model_type": "electra", "embedding_size": 8}
    return one("config.json", *(json.dumps(c).encode() for c in (bert, small, electra)))


def run(root: Path, made: Seeds) -> tuple[Seeds, Seeds]:
    """The folder of a finished run, two stresses: as it is, and compacted."""
    from robustbench_msa import benchmark
    from robustbench_msa.evaluation.compaction import compact

    for name, content in made.files.items():
        path = root / "c" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "a.npz").write_bytes(npz(False))
    for stress, grid in (("missing", "0,0.5"), ("noise", "0,0.2,0.4")):
        benchmark(checkpoint=root / "c", stress=stress, grid=grid, dataset="mine", data=root / "a.npz", seeds=1,
                  out=root / "run", device="cpu")  # fmt: skip
    found = folder(root / "run")
    cells = [name for name in found.files if name.startswith("predictions/")]
    found.files["failures/" + "0" * 24 + ".json"] = json.dumps({"key": "0" * 24, "message": "m"}).encode()
    found.hostile = [name for name in found.files if name not in cells[2:] and not name.endswith(".lock")]
    compact(root / "run")
    gathered = folder(root / "run")
    gathered.hostile = [name for name in gathered.files if name.startswith(("predictions/", "runtime/", ".tables"))]
    return found, gathered


def exported(root: Path) -> tuple[Seeds, dict[str, Seeds]]:
    from robustbench_msa.bridge import export

    (root / "a.npz").write_bytes(npz(False))
    export(root / "x", "missing", "0,0.5", dataset="mine", data=root / "a.npz", seeds=1)
    manifest = (root / "x" / "manifest.json").read_bytes()
    content = json.loads(manifest)
    cells, ids = [cell["name"] for cell in content["cells"]], content["samples"]["ids"]
    table = pd.DataFrame([(c, i, 0.5) for c in cells for i in ids], columns=["cell", "id", "prediction"])
    csv, parquet, zipped = io.StringIO(), io.BytesIO(), io.BytesIO()
    table.to_csv(csv, index=False)
    table.to_parquet(parquet, index=False)
    np.savez(zipped, **{name: np.array(list(table[name])) for name in ("cell", "id", "prediction")})  # type: ignore[arg-type]
    kinds = {"csv": csv.getvalue().encode(), "parquet": parquet.getvalue(), "npz": zipped.getvalue()}
    beside = {"manifest.json": manifest}
    predictions = {kind: Seeds({**beside, f"p.{kind}": data}, [f"p.{kind}"]) for kind, data in kinds.items()}
    return Seeds(beside, ["manifest.json"]), predictions


def texts() -> Iterator[tuple[str, Seeds]]:

    from corruptions.protocols import Protocol, shipped
    from corruptions.registry import describe

    yield "protocol", one("p.toml", *(Protocol.load(name).text.encode() for name in shipped()))
    names = [entry["name"] for entry in describe()]
    stresses = [f"{e['name']}:{e['parameters']}".replace(", ", ",").rstrip(":") for e in describe()]
    more = ["noise+missing:missing.fill=zeros,modalities=audio", "spectrum:told=true", *names]
    yield "stress", one("t.txt", *(text.encode() for text in (*stresses, *more)))
    grids = ("0:0.8:0.2", "0,0.25,1", "0:0.7:0.1x0:0.7:0.1", "t,a,t+a,t+a+v", "0:1:0.05")
    yield "grid", one("t.txt", *(text.encode() for text in grids))


def everything() -> dict[str, Seeds]:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in ("mintrec", "iemocap", "msa", "checkpoint", "run", "export"):
            (root / name).mkdir()
        made = checkpoint(root / "checkpoint")
        export_manifest, predictions = exported(root / "export")
        zipped, legacy = torch_files()
        weights = made.files["model.safetensors"]
        finished, compacted = run(root / "run", made)
        card = {
            "recipe": "clean",
            "train_seed": 1111,
            "trained_on": "mosi",
            "selection": {"split": "valid", "by": "MAE"},
        }
        return {
            "pickle": pickles(),
            "mmsa": one("data.pkl", *(pickle.dumps(mmsa(t), p) for t in (False, True) for p in (4, 2))),
            "npz": one("data.npz", npz(False), npz(True)),
            "npy": npy(),
            "hdf5": one("data.h5", hdf5(), hdf5(compression="gzip"), hdf5(chunks=True, shuffle=True, libver="latest")),
            "msa": stored(root / "msa"),
            "mintrec": mintrec(root / "mintrec"),
            "iemocap": iemocap(root / "iemocap"),
            "safetensors": one("w.safetensors", weights),
            "torch": zipped,
            "torch-legacy": legacy,
            "card": Seeds(
                {
                    "card.json": json.dumps(card).encode(),
                    "config.json": b'{"card": {"recipe": "clean"}}',
                    "w.pth": b"x",
                },
                ["card.json"],
            ),
            "checkpoint": made,
            "backbone": backbone(),
            "status": finished,
            "compacted": compacted,
            "leaderboard": finished,
            "export": export_manifest,
            **{f"score-{kind}": seeds for kind, seeds in predictions.items()},
            **dict(texts()),
        }


if __name__ == "__main__":
    import seeds  # this file by its name, so that what is pickled is seeds.Seeds wherever it is read

    torch.set_num_threads(1)
    Path(sys.argv[1]).write_bytes(pickle.dumps(seeds.everything()))
