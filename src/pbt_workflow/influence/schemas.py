"""The Arrow schemas of the influence artifacts."""

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
HISTORY = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("generated", pa.bool_())])
)
VARIABLES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))
STRINGS = pa.list_(pa.string())
NUMBERS = pa.list_(pa.float64())

# Who a trajectory is: an environment (theme) of a class, an opening in it, and a number.
TRAJECTORY = {
    "trajectory": pa.string(),
    "environment": pa.string(),
    "user_type": pa.string(),
    "opening": pa.string(),
    "iteration": pa.int16(),
}
SCHEMAS = {
    # Messages and variables are templates that still lack the names drawn by the plan.
    "influence_openings": {
        "environment_class": pa.string(),
        "environment": pa.string(),
        "user_type": pa.string(),
        "opening": pa.string(),
        "messages": MESSAGES,
        "variables": VARIABLES,
        "opening_digest": pa.string(),
    },
    "influence_plan": {
        **TRAJECTORY,
        "variables": VARIABLES,
        "seed": pa.int64(),
        "shard": pa.int16(),
    },
    # One row per turn; the history ends with the turn's reply.
    "influence_turns": {
        **TRAJECTORY,
        "turn": pa.int16(),
        "state": pa.string(),
        "next_state": pa.string(),
        "system": pa.string(),
        "history": HISTORY,
        "reply": pa.string(),
        "user_reply": pa.string(),
        "transition": pa.string(),
        "transition_labels": STRINGS,
        "transition_probabilities": NUMBERS,
        "transition_mass": pa.float64(),
        "transition_fallback": pa.bool_(),
        "visited": STRINGS,
        "done": pa.bool_(),
        "done_reason": pa.string(),
        "prompt_tokens": pa.int32(),
        "reply_tokens": pa.int32(),
        "finish_reason": pa.string(),
        "variables": VARIABLES,
        "seed": pa.int64(),
        "agent": pa.string(),
        "adapter": pa.string(),
    },
    # expectation: sum of label times probability; null if the labels held no probability.
    "influence_ratings": {
        "trajectory": pa.string(),
        "iteration": pa.int16(),
        "turn": pa.int16(),
        "assessor": pa.string(),
        "model": pa.string(),
        "labels": STRINGS,
        "probabilities": NUMBERS,
        "mass": pa.float64(),
        "expectation": pa.float64(),
        "argmax": pa.string(),
        "prompt_digest": pa.string(),
    },
    # reward_raw is without the length penalty; null where a turn has no rating.
    "influence_trajectories": {
        **TRAJECTORY,
        "reward": pa.float64(),
        "reward_raw": pa.float64(),
        "influence": pa.float64(),
        "turns": pa.int16(),
        "agent_characters": pa.int32(),
        "visited": STRINGS,
        "vetoed": pa.bool_(),
    },
    "influence_selected": {
        "trajectory": pa.string(),
        "iteration": pa.int16(),
        "group": pa.string(),
        "group_size": pa.int32(),
        "rank": pa.int32(),
        "side": pa.string(),
        "reward": pa.float64(),
        "influence": pa.float64(),
        "level": pa.string(),
    },
    # ended: whether the reply ends there, or was cut at the token limit. Static rows have turn 0.
    "influence_rows": {
        "prompt": MESSAGES,
        "completion": MESSAGES,
        "desirable": pa.bool_(),
        "ended": pa.bool_(),
        "source": pa.string(),
        "trajectory": pa.string(),
        "turn": pa.int16(),
        "environment": pa.string(),
    },
    # environment and user_type: empty for all together, environment alone for a type of user;
    # subset: all trajectories, or those selected as best.
    "influence_statistics": {
        "experiment": pa.string(),
        "iteration": pa.int16(),
        "environment": pa.string(),
        "user_type": pa.string(),
        "subset": pa.string(),
        "metric": pa.string(),
        "value": pa.float64(),
        "se": pa.float64(),
        "ci_low": pa.float64(),
        "ci_high": pa.float64(),
        "n": pa.int32(),
        "openings": pa.int32(),
    },
}
NULLABLE = {
    "user_reply",
    "done_reason",
    "expectation",
    "argmax",
    "reward",
    "reward_raw",
    "influence",
    "transition_mass",
}
