"""One generative ConvNet for every level of noise."""
