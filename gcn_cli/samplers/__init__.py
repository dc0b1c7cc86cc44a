"""Samplers of an energy or a denoiser: tensors in, tensors out. No files, no console."""
