"""Trees written in the format of the paper's released code, from this project's tables."""

import json
from pathlib import Path

import polars as pl


def line(nodes: pl.DataFrame, question: dict) -> dict:
    """One tree's line.

    Args:
        nodes: its turns (schema `nodes`), by node_id.
        question: its row of the `questions` table.
    """
    raw: dict[int, list] = {-1: [None, None]}
    data = [
        {
            "node_idx": -1,
            "agent_idx": -1,
            "generation": f"Answer the question.\n\nQuestion: {question['question']}",
            "extracted_ans": [None, None],
            "extracted_conf": -1.0,
            "parent": -1,
            "children": [],
        }
    ]
    for node in nodes.iter_rows(named=True):
        agent = "ab".index(node["agent"])
        raw[node["node_id"]] = list(raw[node["parent_id"]])
        raw[node["node_id"]][1 - agent] = node["extracted"]
        data.append(
            {
                "node_idx": node["node_id"],
                "agent_idx": agent,
                "generation": node["text"],
                "extracted_ans": raw[node["node_id"]],
                "extracted_conf": 0.5,
                "parent": node["parent_id"],
                "children": nodes.filter(parent_id=node["node_id"])["node_id"].to_list(),
            }
        )
    answer = {key: question[key] for key in ("aliases", "normalized_aliases")}
    metadata = {"question": question["question"], "question_source": "here", "answer": answer}
    metadata |= {"question_id": f"{question['question_id']}_0", "entity_pages": {"title": []}}
    return {"data": data, "metadata": metadata, "model_a": "org/one", "model_b": "org/two"}


def write(nodes: pl.DataFrame, questions: pl.DataFrame, path: Path) -> None:
    """All trees of some questions, a line each."""
    asked = {row["question_id"]: row for row in questions.iter_rows(named=True)}
    with path.open("w", encoding="utf-8") as file:
        for (question_id,), tree in nodes.group_by("question_id", maintain_order=True):
            file.write(json.dumps(line(tree.sort("node_id"), asked[question_id])) + "\n")
