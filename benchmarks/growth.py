"""Seconds per node of growing trees with extraction: three ways, one run, the same requests.

    python benchmarks/growth.py resources/models/smollm2

Prompts are the paper's (roles of Figures 6 and 7, extraction of Figure 8). The trees are grown
once by this package's engine; its requests are then replayed by
  plain     the same batches through generate(), every prompt computed on its own, and
  released  one sequence at a time without a key-value cache, as the authors' loop does, on a
            sample of nodes, because it is slow.
Ratios are printed; absolute seconds depend on the machine.
"""

import argparse
import time
from pathlib import Path

import torch

from pbt_workflow.chat import encode, load_prompt
from pbt_workflow.config import Decoding, Extraction, Trees
from pbt_workflow.engines import ChatRequest
from pbt_workflow.engines.transformers_engine import TransformersEngine
from pbt_workflow.growth import extract_turn, generate_turn
from pbt_workflow.questions import load_questions


class Recorder:
    """An engine that keeps what it was asked, and how long it took."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.calls, self.seconds = engine, [], 0.0

    def chat(self, requests: list[ChatRequest], decoding, adapter=None):
        start = time.perf_counter()
        replies = self.engine.chat(requests, decoding, adapter)
        self.seconds += time.perf_counter() - start
        self.calls.append((requests, decoding))
        return replies


def grow(recorder: Recorder, questions, trees: Trees) -> int:
    """Grow all depths with extraction; return the number of nodes."""
    prompts = {role: load_prompt(role) for depth in trees.depths for role in depth.roles}
    extraction = Extraction(model="model")
    nodes = None
    for depth in range(len(trees.depths)):
        nodes = generate_turn(recorder, questions, nodes, depth, trees, prompts)
        nodes = extract_turn(
            recorder, questions, nodes, depth, trees, extraction, load_prompt("extract")
        )
    return nodes.height


@torch.inference_mode()
def released_seconds(engine: TransformersEngine, calls: list, sample: int) -> float:
    """Seconds per node of one turn and its extraction, one sequence at a time, without a cache."""
    total = 0.0
    turns, extractions = calls[-2], calls[-1]
    step = max(1, len(turns[0]) // sample)
    rows = list(range(0, len(turns[0]), step))[:sample]
    for requests, decoding in (turns, extractions):
        for row in rows:
            ids = encode(engine.tokenizer, requests[row].messages, requests[row].opening)
            start = time.perf_counter()
            engine.model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                use_cache=False,
                do_sample=decoding.temperature > 0,
                temperature=decoding.temperature or None,
                max_new_tokens=decoding.max_new_tokens,
                min_new_tokens=decoding.min_new_tokens,
                pad_token_id=engine.tokenizer.pad_token_id,
            )
            total += time.perf_counter() - start
    return total / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=int, default=6)
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--released", type=int, default=3, help="nodes of the slow loop")
    options = parser.parse_args()

    from pbt_workflow.config import QuestionSource

    source = QuestionSource(
        dataset="easy", path="data/easy/questions.jsonl", split="train", limit=options.questions
    )
    questions = load_questions(source, Path(source.path))
    trees = Trees(decoding=Decoding(max_new_tokens=options.new_tokens, min_new_tokens=8))
    engine = TransformersEngine(options.model, batch_size=options.batch)
    ours = Recorder(engine)
    nodes = grow(ours, questions, trees)

    engine.share_prefixes = False
    plain = Recorder(engine)
    for requests, decoding in ours.calls:
        plain.chat(requests, decoding)
    released = released_seconds(engine, ours.calls, options.released)

    per_node = {
        "this package": ours.seconds / nodes,
        "plain batched generate()": plain.seconds / nodes,
        f"released-style loop ({options.released} nodes)": released,
    }
    print(f"{nodes} nodes of {options.questions} trees, {torch.get_num_threads()} threads")
    for name, seconds in per_node.items():
        print(f"  {name:36s}{seconds:9.3f} s a node  {seconds / per_node['this package']:7.2f} x")
    print(f"of plain batched: {ours.seconds / plain.seconds:.0%} (goal: at most 60 %)")
    print(f"of the released-style loop: 1/{released * nodes / ours.seconds:.0f} (goal: 1/20)")


if __name__ == "__main__":
    main()
