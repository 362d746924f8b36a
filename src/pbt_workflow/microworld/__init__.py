"""A small closed world in which the truth, and what each agent knows, are given."""
