"""A small model of one's own: a vector per modality, and weights that say how much each one counts."""

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """h_m = MLP_m(mean of x_m over its steps), w = softmax of their scores, prediction = head(sum of w_m h_m)."""

    def __init__(self, d_text: int, d_audio: int, d_vision: int, width: int = 64) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, width)) for d in (d_text, d_audio, d_vision)
        )
        self.score = nn.Linear(width, 1)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 1))

    def forward(self, text: Tensor, audio: Tensor, video: Tensor, lengths: tuple[Tensor, ...]) -> dict[str, Tensor]:
        pairs = zip((text, audio, video), lengths, strict=True)  # (N, T_m, d_m) with zeros for padding, (N,)
        means = [x.sum(dim=1) / length[:, None] for x, length in pairs]  # (N, d_m)
        h = torch.stack([encode(x) for encode, x in zip(self.encoders, means, strict=True)], dim=1)  # (N, 3, width)
        weights = self.score(h).softmax(dim=1)  # (N, 3, 1)
        return {"M": self.head((weights * h).sum(dim=1)), "weights": weights}  # (N, 1), (N, 3, 1)
