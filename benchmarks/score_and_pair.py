"""Time and memory of scoring and pairing as many trees as the paper has questions.

Run from the repository with the package installed: python benchmarks/score_and_pair.py

Two inputs: full trees of 21 turns each (1.6 million turns), and the same number of trees whose
branches end when the agents agree. Each is made in one process and measured in another, so that
making it adds to neither figure; reading it from Parquet is not timed but its memory counts.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

TREES = 76_495


def make(folder: str, ended: float) -> None:
    """Write the trees and their questions as Parquet."""
    import synthetic

    from pbt_workflow.tables import write_table

    write_table(synthetic.questions(TREES), Path(folder, "questions.parquet"), "questions")
    write_table(synthetic.trees(TREES, ended=ended), Path(folder, "nodes.parquet"), "nodes")


def measure(folder: str, name: str) -> None:
    """Score and pair what `make` wrote, and print the figures."""
    from pbt_workflow.chat import load_prompt
    from pbt_workflow.config import Pairs
    from pbt_workflow.pairs import make_pairs
    from pbt_workflow.scores import score_trees
    from pbt_workflow.tables import read_table

    questions = read_table(Path(folder, "questions.parquet"), "questions")
    nodes = read_table(Path(folder, "nodes.parquet"), "nodes")
    prompt = load_prompt("standard")
    started = time.perf_counter()
    scored = score_trees(nodes, questions)
    between = time.perf_counter()
    pairs = make_pairs(scored, questions, Pairs(), prompt)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    codes = dict(pairs.group_by("code").len().sort("code").iter_rows())
    print(
        f"{name}: {nodes.height:,} turns, {ended - started:.1f} s "
        f"(score {between - started:.1f}, pair {ended - between:.1f}), peak {peak:.2f} GiB; "
        f"{pairs.height:,} pairs: {codes.get('resist', 0):,} resist, "
        f"{codes.get('accept', 0):,} accept, {codes.get(None, 0):,} without a code",
        flush=True,
    )


def main() -> None:
    processes = multiprocessing.get_context("spawn")
    for name, ended in (("full trees", 0.0), ("trees ended by agreement", 1.0)):
        with tempfile.TemporaryDirectory() as folder:
            for step, arguments in ((make, (folder, ended)), (measure, (folder, name))):
                process = processes.Process(target=step, args=arguments)
                process.start()
                process.join()
                if process.exitcode:
                    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
