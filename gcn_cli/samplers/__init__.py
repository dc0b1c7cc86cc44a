"""Sampling: named noise, Langevin dynamics, mode finding. Knows energies, no files, no console."""
