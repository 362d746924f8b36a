"""The Arrow schema of every artifact, and which columns may hold nulls."""

import pyarrow as pa

from pbt_workflow.influence import schemas as influence

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
STRINGS = pa.list_(pa.string())

QUESTIONS = {
    "question_id": pa.string(),
    "question": pa.string(),
    "aliases": STRINGS,
    "normalized_aliases": STRINGS,
    "dataset": pa.string(),
    "split": pa.string(),
}
NODES = {
    "tree_id": pa.string(),
    "question_id": pa.string(),
    "node_id": pa.int32(),
    "parent_id": pa.int32(),
    "depth": pa.int8(),
    "agent": pa.string(),
    "role": pa.string(),
    "text": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int32(),
    "cached_tokens": pa.int32(),
    "new_tokens": pa.int32(),
    "extracted": pa.string(),
    "belief": pa.string(),
    "belief_a": pa.string(),
    "belief_b": pa.string(),
    "ended": pa.bool_(),
}
# p_answers_agree: the two agents' beliefs count as one answer; p_response_agrees: the turn agrees
# with what it replies to. mass_*: probability of the labels together. Null where not asked.
FILTER = {
    "p_answers_agree": pa.float64(),
    "mass_answers": pa.float64(),
    "p_response_agrees": pa.float64(),
    "mass_response": pa.float64(),
}
SCORED = {
    **NODES,
    **FILTER,
    "correct": pa.bool_(),
    "correct_a": pa.bool_(),
    "correct_b": pa.bool_(),
    "children": pa.int32(),
    "score": pa.int32(),
}
PAIRS = {
    "pair_id": pa.string(),
    "tree_id": pa.string(),
    "question_id": pa.string(),
    "split": pa.string(),
    "code": pa.string(),
    "parent_id": pa.int32(),
    "preferred_id": pa.int32(),
    "dispreferred_id": pa.int32(),
    "agent": pa.string(),
    "preferred_score": pa.int32(),
    "dispreferred_score": pa.int32(),
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "partner_belief": pa.string(),
    "previous_belief": pa.string(),
    "normalized_aliases": STRINGS,
    "preferred_p_agrees": pa.float64(),
    "preferred_mass": pa.float64(),
    "dispreferred_p_agrees": pa.float64(),
    "dispreferred_mass": pa.float64(),
}
RESPONSES = {
    "evaluation": pa.string(),
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "epoch": pa.int32(),
    "subset": pa.string(),
    "item_id": pa.string(),
    "question_id": pa.string(),
    "turn": pa.int8(),
    "prompt": MESSAGES,
    "text": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int32(),
    "cached_tokens": pa.int32(),
    "new_tokens": pa.int32(),
    "partner_belief": pa.string(),
    "previous_belief": pa.string(),
    "normalized_aliases": STRINGS,
    "extracted": pa.string(),
    "belief": pa.string(),
    "correct": pa.bool_(),
    # How the profile of the misinformation evaluation counts an answer: correct, wrong or
    # unchanged; null for replies that are not judged, and in the other evaluations.
    "judgement": pa.string(),
}
METRICS = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "evaluation": pa.string(),
    "subset": pa.string(),
    "metric": pa.string(),
    "value": pa.float64(),
    "n": pa.int32(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    # Of differences from base: p of a paired test, and which test.
    "p_value": pa.float64(),
    "test": pa.string(),
}
# A cell of a table of results, over seeds, beside the paper's.
RESULTS = {
    "table": pa.string(),
    "model": pa.string(),
    "recipe": pa.string(),
    "partner": pa.string(),
    "column": pa.string(),
    "value": pa.float64(),
    "sd": pa.float64(),
    "seeds": pa.int32(),
    "n_min": pa.int32(),
    "n_max": pa.int32(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    "paper_value": pa.float64(),
    "paper_sd": pa.float64(),
    "paper_source": pa.string(),
}
# One row per logged step; a quantity the stage does not have is null.
TRAINING = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "stage": pa.string(),
    "step": pa.int32(),
    "epoch": pa.float64(),
    "metric": pa.string(),
    "value": pa.float64(),
}
# Where rows were lost on the way from questions to preferences.
FUNNEL = {
    "order": pa.int32(),
    "step": pa.string(),
    "detail": pa.string(),
    "count": pa.int64(),
}
# The dev accuracy of every epoch and of SFT (epoch 0), their difference, and which one was kept.
SELECTION = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "epoch": pa.int32(),
    "dev_accuracy": pa.float64(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    "minus_sft": pa.float64(),
    "minus_sft_low": pa.float64(),
    "minus_sft_high": pa.float64(),
    "n": pa.int32(),
    "selected": pa.bool_(),
}

# Replies that state either the model's earlier answer (`original`) or its partner's
# (`alternative`); `flipped` is the latter.
FLIPS = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "subset": pa.string(),
    "item_id": pa.string(),
    "question_id": pa.string(),
    "question": pa.string(),
    "aliases": STRINGS,
    "normalized_aliases": STRINGS,
    "flipped": pa.bool_(),
    "original": pa.string(),
    "alternative": pa.string(),
    "original_correct": pa.bool_(),
    "alternative_correct": pa.bool_(),
    "own_turn": pa.string(),
    "other_turn": pa.string(),
    "prompt": MESSAGES,
}
# Of all balanced replies of a subject: how many had each fate.
EXCLUSIONS = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "order": pa.int32(),
    "reason": pa.string(),
    "count": pa.int64(),
}
# In nats; null where an answer cannot be scored on its own.
LOG_PROBABILITIES = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "item_id": pa.string(),
    "logp_original": pa.float64(),
    "logp_alternative": pa.float64(),
    "logp_original_per_token": pa.float64(),
    "logp_alternative_per_token": pa.float64(),
}
# mass_*: probability of the labels yes and no together.
CONFIDENCES = {
    "model": pa.string(),
    "item_id": pa.string(),
    "confidence_original": pa.float64(),
    "mass_original": pa.float64(),
    "confidence_alternative": pa.float64(),
    "mass_alternative": pa.float64(),
}
FEATURES = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "item_id": pa.string(),
    "question_id": pa.string(),
    "flipped": pa.bool_(),
    "original": pa.string(),
    "alternative": pa.string(),
    "answer_entropy": pa.float64(),
    "no_answer_share": pa.float64(),
    **{name: kind for name, kind in LOG_PROBABILITIES.items() if name.startswith("logp_")},
    **{name: kind for name, kind in CONFIDENCES.items() if kind == pa.float64()},
    "alternative_correct": pa.bool_(),
}
# seed: null where seeds are pooled. n rows of `questions` questions; `missing` more lacked a
# feature; `failed` refits of the bootstrap did not converge.
COEFFICIENTS = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "scale": pa.string(),
    "feature": pa.string(),
    "value": pa.float64(),
    "se": pa.float64(),
    "z": pa.float64(),
    "p_value": pa.float64(),
    "test": pa.string(),
    "p_test": pa.float64(),
    "p_holm": pa.float64(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    "n": pa.int32(),
    "flipped": pa.int32(),
    "questions": pa.int32(),
    "missing": pa.int32(),
    "failed": pa.int32(),
    "method": pa.string(),
    "status": pa.string(),
    "note": pa.string(),
}
PREDICTION = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "predictor": pa.string(),
    "split": pa.string(),
    "metric": pa.string(),
    "value": pa.float64(),
    "n": pa.int32(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    "status": pa.string(),
    "note": pa.string(),
}
# Of the n held-out rows in a tenth of the predicted probability: its mean, and the share of flips.
CALIBRATION = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "predictor": pa.string(),
    "split": pa.string(),
    "bin": pa.int8(),
    "predicted": pa.float64(),
    "value": pa.float64(),
    "n": pa.int32(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
}
# One row per recipe; all recipes of an example answer the same dialogue.
EXAMPLES = {
    "model": pa.string(),
    "seed": pa.int32(),
    "example": pa.int32(),
    "subset": pa.string(),
    "item_id": pa.string(),
    "question_id": pa.string(),
    "question": pa.string(),
    "answer": pa.string(),
    "previous_belief": pa.string(),
    "partner_belief": pa.string(),
    "own_turn": pa.string(),
    "other_turn": pa.string(),
    "recipe": pa.string(),
    "text": pa.string(),
    "belief": pa.string(),
    "correct": pa.bool_(),
}

SCHEMAS = {
    "questions": QUESTIONS,
    "nodes": NODES,
    "filtered": {**NODES, **FILTER},
    "scored": SCORED,
    "pairs": PAIRS,
    "responses": RESPONSES,
    "metrics": METRICS,
    "results": RESULTS,
    "training": TRAINING,
    "funnel": FUNNEL,
    "selection": SELECTION,
    "flips": FLIPS,
    "exclusions": EXCLUSIONS,
    "log_probabilities": LOG_PROBABILITIES,
    "confidences": CONFIDENCES,
    "features": FEATURES,
    "coefficients": COEFFICIENTS,
    "prediction": PREDICTION,
    "calibration": CALIBRATION,
    "examples": EXAMPLES,
    **influence.SCHEMAS,
}
# Tables that hold all another one needs.
READ_AS = {"filtered": ("nodes", "scored")}
NULLABLE = {
    "belief",
    "belief_a",
    "belief_b",
    "correct_a",
    "correct_b",
    "code",
    "partner_belief",
    "previous_belief",
    "ci_low",
    "ci_high",
    "epoch",
    "value",
    "judgement",
    "partner",
    "sd",
    "paper_value",
    "paper_sd",
    "paper_source",
    "p_value",
    "test",
    "dev_accuracy",
    "minus_sft",
    "minus_sft_low",
    "minus_sft_high",
    "se",
    "z",
    "p_test",
    "p_holm",
    "failed",
    "method",
    "note",
    *FILTER,
    *influence.NULLABLE,
    *(name for name in LOG_PROBABILITIES if name.startswith("logp_")),
    *(name for name in PAIRS if name.endswith(("_p_agrees", "_mass"))),
}
# Tables in which a null seed means all seeds together.
POOLED = {"coefficients", "prediction", "calibration"}


def nullable(name: str, column: str) -> bool:
    """Whether a column of an artifact may hold nulls."""
    return column in NULLABLE or (column == "seed" and name in POOLED)
