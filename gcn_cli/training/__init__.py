"""Training: denoising, maximum likelihood, contrastive divergence, and the loop that runs them."""
