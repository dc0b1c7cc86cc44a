"""The published learners: maximum likelihood and contrastive divergence, stage by stage."""
