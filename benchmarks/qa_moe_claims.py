"""QA-MoE's own efficiency figures (its A.5 and table 10) beside ours."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.budget import Budget
from benchmarks.report import Table, spread
from benchmarks.setting import ALIGNED, random_dataset, random_model
from benchmarks.timing import timed
from corruptions import Batch
from robustbench_msa.models.contract import MSAModel, Output

BATCH = 16  # of the paper
PAPER = ("QA-MoE, A.5: with a text encoder, RTX 4090", "113.2 M", "10.59 ms", "1,510", "950 MB")


class TextEncoderSized(nn.Module):
    """Twelve Transformer layers of BERT-base's size on vectors of 768: its cost without its weights or embeddings."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)

    def forward(self, batch: Batch) -> Batch:
        return batch.replace(text=self.layers(batch.text))


def qa_moe_claims(budget: Budget) -> list[Table]:
    dataset = random_dataset(BATCH, ALIGNED)
    batch = dataset.splits["test"].to(budget.device)
    model = random_model("qa_moe", "mosi", dataset).to(budget.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = TextEncoderSized().eval().to(budget.device)
    where = torch.cuda.get_device_name() if budget.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rows = [list(PAPER)]
    if budget.device != "cuda":
        rows.append(["ours on a GPU", "", "not measured on a GPU", "", ""])
    rows.append(_row(f"ours on features, {where}", model, None, batch, budget.of(5, 30)))
    rows.append(_row(f"ours behind a stand-in of BERT-base's size, {where}", model, encoder, batch, budget.of(2, 10)))
    note = (
        f"Batches of {BATCH}, 50 steps, float32, prediction alone; samples a second are batch / latency, as in the "
        "paper. Not comparable line by line: other hardware, and the paper's 113.2 M parameters hold a text encoder, "
        "which the model on features does not. The stand-in has the layers of BERT-base (85 M) with random weights. "
        "The paper does not say which memory it means; ours is the most that tensors took on a GPU, and is not given "
        "on a CPU (`msabench profile`). More in docs/efficiency.md."
    )
    columns = ("what", "parameters", "latency", "samples a second", "GPU memory")
    return [Table("QA-MoE's own efficiency figures", columns, rows, [note])]


@torch.inference_mode()
def _row(what: str, model: MSAModel, encoder: TextEncoderSized | None, batch: Batch, repeats: int) -> list[str]:
    def predict() -> torch.Tensor:
        output: Output = model(batch if encoder is None else encoder(batch))
        return output.prediction

    predict()
    memory = "-"
    if batch.text.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        predict()
        memory = f"{torch.cuda.max_memory_allocated() / 1e6:.0f} MB"
    seconds = [timed(predict).elapsed for _ in range(repeats)]
    count = sum(p.numel() for module in (model, encoder) if module is not None for p in module.parameters())
    per_second = spread([BATCH / s for s in seconds], digits=0)
    return [what, f"{count / 1e6:.1f} M", spread([1e3 * s for s in seconds], " ms"), per_second, memory]
