"""The HTML report of a run: samples, training curves, quality and the inside of the model."""
