"""Measuring and training influence: conversations whose rating is what the agent is trained on."""
