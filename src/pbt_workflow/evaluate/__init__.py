"""Evaluations: replies of a model and adapter, the answers they state, and what they amount to."""
