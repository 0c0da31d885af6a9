"""grun-bench: train, score and attack unlearning methods for language models."""

__version__ = "0.1.0"
