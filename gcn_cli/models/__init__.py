"""The generative ConvNet: filters, gates, score, energy, top-down reconstruction.

Knows tensors only: no files, no console, no configuration.
"""
