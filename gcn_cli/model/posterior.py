"""The discriminative reading: class posteriors from scores, and back (proposition 1).

A softmax classifier with one base category of score 0 whose images follow q is, by Bayes' rule,
a set of generative ConvNets p(I | c) = exp(f_c(I)) q(I) / Z_c, and the other way round:

    p(c | I) is proportional to exp(f_c(I) + b_c),   b_c = log p(c) - log p(base) - log Z_c.
"""

import torch
from torch import Tensor


def class_posteriors(scores: Tensor, biases: Tensor) -> Tensor:
    """p(c | I) with the base category in front: (N, K), (K,) -> (N, K + 1), rows sum to 1."""
    base = scores.new_zeros(len(scores), 1)
    return torch.softmax(torch.cat([base, scores + biases], dim=1), dim=1)


def biases_from_priors(priors: Tensor, log_partition: Tensor) -> Tensor:
    """Generative to discriminative: priors (K + 1,), base first, and log Z_c (K,) -> b_c (K,).

    log_partition is log Z_c = log E_q[exp f_c(I)]. Raises ValueError unless priors are positive
    and sum to 1.
    """
    if bool((priors <= 0).any()) or abs(float(priors.sum()) - 1) > 1e-6:
        raise ValueError("class priors must be positive and sum to 1")
    return priors[1:].log() - priors[0].log() - log_partition


def priors_from_biases(biases: Tensor, log_partition: Tensor) -> Tensor:
    """Discriminative to generative: b_c (K,), log Z_c (K,) -> class priors (K + 1,), base first."""
    return torch.softmax(torch.cat([biases.new_zeros(1), biases + log_partition]), dim=0)


def log_density_ratios(posteriors: Tensor, priors: Tensor) -> Tensor:
    """log p(I | c) / q(I) by Bayes' rule: (N, K + 1), (K + 1,), base first -> (N, K)."""
    log_ratio = posteriors.log() - priors.log()
    return log_ratio[:, 1:] - log_ratio[:, :1]
