"""Learning: maximum likelihood, contrastive divergence, denoising; the training loop.

Knows models and samplers; no files, no console.
"""
