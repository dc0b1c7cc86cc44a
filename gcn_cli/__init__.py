"""gcn: learn a generative ConvNet from pictures and synthesise from it."""

__version__ = "0.1.0"
