"""CDL+: psi predicts how each base model will score unseen samples; its errors give the weights w_i (Eqs. 6, 7)."""

import torch
from torch import Tensor, nn

from ahl_train.heads.base import NORMAL, PSEUDO, SEEN

HISTORY = 5  # K, watched epochs; the weights are uniform until K epochs have passed
_GROUP_WEIGHTS = {NORMAL: 0.5, PSEUDO: 0.5, SEEN: 1.0}


class Psi(nn.Module):
    """Two-layer bidirectional LSTM: the scores of T base models over K epochs to their next scores."""

    def __init__(self, models: int, hidden: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(models, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * hidden, models)

    def forward(self, history: Tensor) -> Tensor:
        """float [samples, K, T] to float [samples, T]. Predicts the change since the last epoch."""
        change: Tensor = self.out(self.lstm(history)[0][:, -1])
        return history[:, -1] + change


def train_step(psi: Psi, optimizer: torch.optim.Optimizer, scores: Tensor, steps: int = 20) -> Tensor:
    """Fit psi to predict the newest of float [K + 1, samples, T] from the K before. Returns the last MSE, float []."""
    history, target = scores[:-1].transpose(0, 1), scores[-1]
    for _ in range(steps):
        loss = nn.functional.mse_loss(psi(history), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.detach()


def generalisation_error(predicted: Tensor, group: Tensor, unseen: Tensor) -> Tensor:
    """r_i (Eq. 6): 0.5 (normals) + 0.5 (pseudo anomalies) + 1 (seen anomalies) times the mean squared error.

    ``predicted`` float [samples, T], scores in units of the margin, so that 0 is right for a normal and 1 for an
    anomaly; ``group`` int [samples]; ``unseen`` bool [samples, T]: not in the model's support. A group without
    unseen samples adds nothing.
    """
    target = (group != NORMAL).float()[:, None]
    squared = (predicted.clamp(0, 1) - target).square()
    r = predicted.new_zeros(predicted.shape[1])
    for value, weight in _GROUP_WEIGHTS.items():
        member = (unseen & (group == value)[:, None]).float()
        r = r + weight * (squared * member).sum(0) / member.sum(0).clamp_min(1)
    return r


def weights(r: Tensor) -> Tensor:
    """w_i = exp(-r_i) / sum_t exp(-r_t) (Eq. 7)."""
    return torch.softmax(-r, dim=0)
