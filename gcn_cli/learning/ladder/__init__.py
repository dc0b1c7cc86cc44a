"""Learning a ladder: denoising with Muon, then maximum likelihood beside it."""
