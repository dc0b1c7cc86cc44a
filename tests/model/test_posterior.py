"""The discriminative and the generative reading of the same scores."""

import pytest
import torch

from gcn_cli.model.posterior import (
    biases_from_priors,
    class_posteriors,
    log_density_ratios,
    priors_from_biases,
)


def test_posteriors_agree_with_bayes_on_a_space_that_can_be_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    reference = torch.rand(50, generator=generator, dtype=torch.float64)
    reference /= reference.sum()
    priors = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    log_partition = (reference[:, None] * scores.exp()).sum(dim=0).log()

    densities = scores.exp() * reference[:, None] / log_partition.exp()
    joint = torch.cat([reference[:, None], densities], dim=1) * priors
    by_bayes = joint / joint.sum(dim=1, keepdim=True)

    biases = biases_from_priors(priors, log_partition)
    posteriors = class_posteriors(scores, biases)
    torch.testing.assert_close(posteriors, by_bayes)
    torch.testing.assert_close(priors_from_biases(biases, log_partition), priors)
    ratios = log_density_ratios(posteriors, priors)
    torch.testing.assert_close(ratios, (densities / reference[:, None]).log())


def test_priors_must_be_a_distribution() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        biases_from_priors(torch.tensor([0.5, 0.6]), torch.zeros(1))
