"""Generators by name: restoring the states of other devices."""

import torch

from gcn_cli.samplers.rng import restore_generator


def test_a_state_of_another_device_gives_a_new_stream_that_repeats() -> None:
    """On a GPU a state has 16 bytes."""
    draws = []
    for state in (torch.arange(16, dtype=torch.uint8), torch.arange(16, dtype=torch.uint8).flip(0)):
        for _ in range(2):
            generator = torch.Generator().manual_seed(5)
            restore_generator(generator, state)
            draws.append(float(torch.randn((), generator=generator)))
    assert draws[0] == draws[1] != draws[2] == draws[3]
