"""Seconds per node of growing trees with extraction: three ways, one run, the same requests.

    python benchmarks/growth.py resources/models/smollm2

Prompts and lengths are the paper's (roles of Figures 6 and 7, extraction of Figure 8, 80 new
tokens). The trees are grown once by this package's engine; then requests of the deepest depth are
answered again by
  plain     one batch of them through generate(), every prompt computed on its own, and
  released  one sequence at a time without a key-value cache, as the authors' loop does, on a
            few nodes, because it is slow.
Ratios are printed; absolute seconds depend on the machine.
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper

from pbt_workflow.chat import encode, load_prompt
from pbt_workflow.config import Decoding, Extraction, Trees
from pbt_workflow.engines import ChatRequest
from pbt_workflow.engines.transformers_engine import SeededSampling, TransformersEngine
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


def replay(engine: TransformersEngine, calls: list) -> float:
    """Seconds to answer recorded calls again."""
    start = time.perf_counter()
    for requests, decoding in calls:
        engine.chat(requests, decoding)
    return time.perf_counter() - start


@torch.inference_mode()
def released_seconds(engine: TransformersEngine, calls: list) -> float:
    """Seconds to answer calls one sequence at a time without a cache; the replies are the same."""
    start = time.perf_counter()
    for requests, decoding in calls:
        for request in requests:
            ids = torch.tensor([encode(engine.tokenizer, request.messages, request.opening)])
            processors = LogitsProcessorList()
            if decoding.temperature > 0:
                processors.append(TemperatureLogitsWarper(decoding.temperature))
                processors.append(SeededSampling([request.seed], ids.shape[1]))
            engine.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                do_sample=False,
                logits_processor=processors,
                max_new_tokens=decoding.max_new_tokens,
                min_new_tokens=decoding.min_new_tokens,
                pad_token_id=engine.tokenizer.pad_token_id,
            )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--new-tokens", type=int, default=80)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--released", type=int, default=6, help="nodes of the slow loop")
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

    # The deepest depth: a turn and its extraction for each of so many nodes.
    turns, extractions = ours.calls[-2:]
    batch = [(calls[: options.batch], decoding) for calls, decoding in (turns, extractions)]
    few = len(turns[0]) // options.released
    spread = [
        (calls[:: max(1, few)][: options.released], decoding)
        for calls, decoding in (turns, extractions)
    ]
    shared = replay(engine, batch) / len(batch[0][0])
    engine.share_prefixes = False
    plain = replay(engine, batch) / len(batch[0][0])
    released = released_seconds(engine, spread) / len(spread[0][0])

    growing = ours.seconds / nodes
    print(f"{nodes} nodes of {options.questions} trees, {torch.get_num_threads()} threads")
    print(f"  this package, all nodes                 {growing:9.3f} s a node")
    print(f"  this package, {len(batch[0][0])} deepest nodes          {shared:9.3f} s a node")
    print(f"  plain batched generate(), the same      {plain:9.3f} s a node")
    print(f"  released-style loop, {len(spread[0][0])} deepest nodes    {released:9.3f} s a node")
    print(f"of plain batched: {shared / plain:.0%} (goal: at most 60 %)")
    print(f"of the released-style loop: 1/{released / growing:.0f} (goal: 1/20)")


if __name__ == "__main__":
    main()
