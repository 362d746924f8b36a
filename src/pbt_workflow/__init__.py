"""Persuasion-Balanced Training as a workflow: trees, preferences, training, evaluation."""

__version__ = "0.1.0"
