"""Balance (Theorem 1 of arXiv 2411.16695, after Liu et al. 2022 and Tian et al. 2021).

With a linear predictor P and gradient descent, P^T P and the covariance C of y come to share their directions:

    balance = <P^T P, C> / (|P^T P| |C|), Frobenius                                        (a cosine, 0 to 1)

1 means that the predictor is as strong in a direction as the embedding varies in it.

What it can't show: anything about an MLP (then there is no value); and where a carry predicts beside P, or P is
found by least squares rather than by descent, the theorem's premises don't hold: it is shown, and promises nothing.
The identity has a high balance with any even embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.learner import Learner


def balance(p: Tensor, covariance: Tensor) -> float | None:
    """From P and the covariance of y (q x q each); None where one of them is zero."""
    p, covariance = p.to("cpu", torch.float64), covariance.to(torch.float64)
    squared = p.T @ p
    norms = float(squared.norm() * covariance.norm())
    return float((squared * covariance).sum()) / norms if norms > 0.0 else None


def linear_map(learner: Learner) -> Tensor | None:
    """d p / d y, q x q float64, without the carry; None where the predictor is an MLP."""
    choices, q = learner.config.predictor, learner.config.embedding_size
    if choices.kind == "mlp":
        return None
    p = learner.all_weights()["P"][:, :q].to("cpu", torch.float64)
    if choices.normalise:
        p = p / learner.opponents.deviation.to(p)
    return p + torch.eye(q, dtype=torch.float64) if choices.residual else p
