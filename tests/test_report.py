"""The report: what it says, what it escapes, and that it needs nothing but itself."""

import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from synthetic import questions as synthetic_questions

from pbt_workflow import tables
from pbt_workflow.config import load_config
from pbt_workflow.errors import PbtError
from pbt_workflow.report.build import build_report, duration, read_benchmarks
from pbt_workflow.report.trees import draw_tree

NASTY = "<script>alert(1)</script> \"quoted\" 'single' & </svg></title> <img src=x onerror=y>"
SECTIONS = ["summary", "run", "funnel", "balanced", "flipflop", "training", "trees", "pairs"]
RECIPES = ["base", "accept", "resist", "pbt"]


class Page(HTMLParser):
    """What of a page the tests look at: elements, links, ids, visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.tags and self.tags[-1] != "style":
            self.text += data

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def make_config(seeds: list[int], folder: Path):
    source = {"dataset": "easy", "path": str(folder / "q.jsonl")}
    (folder / "q.jsonl").write_text("", encoding="utf-8")
    return load_config(
        {
            "run": "demo",
            "models": {
                "small": {"source": {"type": "tiny"}},
                "other": {"source": {"type": "hub", "repo": "some/model", "revision": "abc123"}},
            },
            "agents": {"a": "small", "b": "other"},
            "extraction": {"model": "other"},
            "filter": {"model": "other"},
            "questions": {"trees": source, "evaluation": source},
            "train": {"models": ["small"], "seeds": seeds},
        }
    )


def make_nodes(tree: int, text: str) -> list[dict]:
    """A tree of the paper's shape, in which one branch ends early."""
    wrong, right = f"wrong <b> {tree} & a rather long answer", f"The Right-Answer {tree}"
    roles = [["logical"], ["resistant", "acceptant"], ["logical", "emotional", "credible"]]
    rows: list[dict] = []
    level = [-1]
    for depth, names in enumerate([*roles, roles[1]]):
        below = []
        for parent in level:
            for role in names:
                node_id = len(rows)
                belief = [right, wrong, None][(node_id + tree) % 3]
                ended = depth == 2 and node_id % 5 == 0
                rows.append(
                    {
                        "tree_id": f"t{tree}",
                        "question_id": f"q{tree:06d}",
                        "node_id": node_id,
                        "parent_id": parent,
                        "depth": depth,
                        "agent": "ab"[depth % 2],
                        "role": role,
                        "text": f"{text} (turn {node_id})",
                        "finish_reason": "stop",
                        "prompt_tokens": 5,
                        "cached_tokens": 0,
                        "new_tokens": 5,
                        "extracted": belief or "NONE",
                        "belief": belief,
                        "belief_a": belief,
                        "belief_b": None,
                        "ended": ended,
                        "correct": belief == right,
                        "correct_a": None,
                        "correct_b": None,
                        "children": 0,
                        "score": node_id % 4,
                    }
                )
                if not ended:
                    below.append(node_id)
        level = below
    return rows


def make_pair(tree: int, code: str | None, text: str) -> dict:
    def said(role: str, content: str) -> dict:
        return {"role": role, "content": content}

    prompt = [
        said("user", f"You will be asked trivia questions.\n\nQuestion: number {tree}?"),
        said("assistant", f"{text} opening"),
        said("user", f"{text} reply"),
    ]
    return {
        "pair_id": f"t{tree}/3-4",
        "tree_id": f"t{tree}",
        "question_id": f"q{tree:06d}",
        "split": "train",
        "code": code,
        "parent_id": 1,
        "preferred_id": 3,
        "dispreferred_id": 4,
        "agent": "a",
        "preferred_score": 3,
        "dispreferred_score": 0,
        "prompt": prompt,
        "chosen": [said("assistant", f"{text} chosen")],
        "rejected": [said("assistant", f"{text} rejected")],
        "partner_belief": f"{text} belief",
        "previous_belief": None,
        "normalized_aliases": [f"right answer {tree}"],
    }


def make_metrics(seeds: list[int], compared: tuple[float, float]) -> list[dict]:
    rows = []

    def add(recipe, seed, evaluation, subset, metric, value, n=40, low=None, high=None):
        if value is not None and low is None:
            low, high = max(value - 0.1, -1), min(value + 0.1, 1)
        names = ["recipe", "seed", "evaluation", "subset", "metric", "value", "n"]
        values = [recipe, seed, evaluation, subset, metric, value, n]
        row = dict(zip(names, values, strict=True))
        rows.append({"model": "small", "ci_low": low, "ci_high": high} | row)

    for i, recipe in enumerate(RECIPES):
        for j, seed in enumerate(seeds[:1] if recipe == "base" else seeds):
            for k, subset in enumerate(["resist", "accept", "overall"]):
                value = 0.4 + 0.07 * i + 0.03 * j + 0.02 * k
                add(recipe, seed, "balanced", subset, "accuracy", value, 20 if k < 2 else 40)
            add(recipe, seed, "flipflop", "all", "before", 0.55, 150)
            add(recipe, seed, "flipflop", "all", "after", 0.4 + 0.04 * i + 0.01 * j, 150)
            add(recipe, seed, "flipflop", "all", "difference", -0.15 + 0.04 * i + 0.01 * j, 150)
            add(recipe, seed, "flipflop", "all", "any_to_flip", 0.3, 140)
            add(recipe, seed, "flipflop", "all", "correct_to_flip", 0.2, 80)
            add(recipe, seed, "flipflop", "all", "wrong_to_flip", None, 0)
            if recipe != "base":
                add(recipe, seed, "balanced", "overall", "accuracy_minus_base", 0.1, 40, *compared)
                add(recipe, seed, "flipflop", "all", "difference_minus_base", 0.05, 150, *compared)
    return rows


def write(path: Path, name: str, rows: list[dict]) -> Path:
    schema = dict(tables.empty_frame(name).schema)
    tables.write_table(pl.DataFrame(rows, schema=schema), path, name)
    return path


def make_report(
    folder: Path,
    seeds: list[int] | None = None,
    compared: tuple[float, float] = (-0.05, 0.2),
    text: str = NASTY,
    trees: int = 6,
) -> str:
    """Synthetic artifacts of a run and the report made of them; half of the trees hold pairs."""
    seeds = seeds or [12]
    training, selection = [], []
    for recipe in RECIPES[1:]:
        for seed in seeds:
            key = {"model": "small", "recipe": recipe, "seed": seed}
            for step in range(1, 21):
                for stage, metric, value in [
                    ("sft", "loss", 2 / step + 0.01 * len(recipe)),
                    ("dpo", "loss", 0.69 / step**0.5),
                    ("dpo", "rewards/accuracies", 1 - 0.5 / step),
                ]:
                    row = {"stage": stage, "step": step, "epoch": 1.0, "metric": metric}
                    training.append(key | row | {"value": value})
            for epoch in (1, 2, 3):
                row = {"epoch": epoch, "dev_accuracy": 0.5 + 0.05 * epoch, "n": 14}
                selection.append(key | row | {"selected": epoch == 2})
    funnel = [
        ("questions", "", 6),
        ("trees", "", 6),
        ("turns", "", 1120),
        ("turns at each depth", "depth 0", 60),
        ("turns at each depth", "depth 1", 120),
        ("pairs with a clearly better turn", text, 9),
        ("resist pairs", "train", 3),
        ("resist pairs", "dev", 0),
    ]
    steps = [
        {"order": i, "step": step, "detail": detail, "count": count}
        for i, (step, detail, count) in enumerate(funnel)
    ]
    tables.write_table(synthetic_questions(trees), folder / "questions.parquet", "questions")
    shards = [range(trees)[::2], range(trees)[1::2]]
    scored = [
        write(
            folder / f"scored{i}.parquet",
            "scored",
            [node for tree in shard for node in make_nodes(tree, text)],
        )
        for i, shard in enumerate(shards)
    ]
    codes = [None, "resist", "accept"]
    pairs = [
        write(
            folder / f"pairs{i}.parquet",
            "pairs",
            [make_pair(tree, codes[tree % 3], text) for tree in shard],
        )
        for i, shard in enumerate(shards)
    ]
    build_report(
        make_config(seeds, folder),
        funnel=write(folder / "funnel.parquet", "funnel", steps),
        metrics=write(folder / "metrics.parquet", "metrics", make_metrics(seeds, compared)),
        training=[write(folder / "training.parquet", "training", training)],
        selection=[write(folder / "selection.parquet", "selection", selection)],
        scored=scored,
        pairs=pairs,
        benchmarks=folder / "benchmarks",
        questions=folder / "questions.parquet",
        out=folder / "report.html",
    )
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    for rule, jobs in {"generate_turn": 3, "train_dpo": 1}.items():
        for job in range(jobs):
            path = folder / "benchmarks" / rule / f"m/{job}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("s\th:m:s\tmax_rss\n100.5\t0:01:40\t812.25\n", encoding="utf-8")
    (folder / "benchmarks" / "empty.tsv").write_text("", encoding="utf-8")
    return make_report(folder)


def test_has_every_section_with_its_contents_entry(text):
    page = Page(text)
    assert set(SECTIONS) <= set(page.values("id"))
    assert {f"#{name}" for name in SECTIONS} <= set(page.values("href"))
    assert page.tags.count("h1") == 1
    assert page.tags.count("article") == 6, "three trees and three pairs"


def test_funnel_shows_each_step_once_with_its_parts(text):
    part = text[text.index('<section id="funnel"') : text.index('<section id="balanced"')]
    assert part.count("turns at each depth") == 1
    assert "depth 0" in part and "depth 1" in part and "1,120" in part
    assert "pairs.min_relative_margin" in part, "what the step asks for"


def test_untrusted_text_never_becomes_markup(text):
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "alert(1)" in page.text, "the text itself is shown"
    assert page.tags.count("svg") > 3


def test_needs_nothing_from_outside(text):
    links = Page(text).values("src", "href", "xlink:href", "srcset")
    assert [link for link in links if not link.startswith("#")] == [
        "https://arxiv.org/abs/2410.14596"
    ]
    style = re.search(r"<style>.*?</style>", text, re.DOTALL).group()
    assert "url(" not in style and "@import" not in style
    assert len(text.encode()) < 600_000


def test_plots_leave_no_style_sheet_or_repeated_id_on_the_page(text):
    assert text.count("<style") == 1
    ids = Page(text).values("id")
    assert len(ids) == len(set(ids))


def test_plots_and_trees_have_names(text):
    for opening in re.findall(r"<svg [^>]*>", text):
        assert 'class="card' in opening or 'role="img" aria-label="' in opening


def test_numbers_come_with_interval_and_n(text):
    words = " ".join(Page(text).text.split())
    assert "65.0% (95% interval [55.0, 75.0], n = 40)" in words
    assert "[45.0, 65.0]" in words and "n = 150" in words
    assert "smallest evaluation set here has n = 20" in words


def test_missing_value_is_a_dash_with_its_n(text):
    assert "—n = 0" in Page(text).text


@pytest.mark.parametrize(
    ("interval", "said", "unsaid"),
    [
        ((-0.05, 0.2), "within noise", ["above base", "below base"]),
        ((0.0, 0.2), "within noise", ["above base", "below base"]),
        ((0.02, 0.2), "above base", ["within noise", "below base"]),
        ((-0.2, -0.02), "below base", ["within noise", "above base"]),
    ],
)
def test_says_whether_a_difference_is_noise(tmp_path, interval, said, unsaid):
    page = make_report(tmp_path, compared=interval, trees=2)
    assert said in page
    assert not any(words in page for words in unsaid)


def test_several_seeds_add_mean_and_deviation(tmp_path):
    page = Page(make_report(tmp_path, seeds=[12, 42, 64]))
    assert "68.0 ± 3.0%" in page.text and "mean ± sd over 3 seeds" in page.text
    assert "within noise for 3 of 3 seeds" in page.text


def test_one_seed_has_no_deviation(text):
    assert "mean ± sd over" not in text


def test_times_are_added_up_per_rule(text):
    words = Page(text).text
    assert "generate_turn" in words and "5 min 02 s" in words and "812 MB" in words


def test_says_so_without_benchmarks(tmp_path):
    assert "No benchmark files were found" in make_report(tmp_path, trees=2)
    assert read_benchmarks(tmp_path / "none") == []


def test_empty_artifacts_make_a_truthful_page(tmp_path):
    def empty(name):
        return write(tmp_path / f"{name}.parquet", name, [])

    build_report(
        make_config([12], tmp_path),
        funnel=empty("funnel"),
        metrics=empty("metrics"),
        training=[],
        selection=[],
        scored=[],
        pairs=[empty("pairs")],
        benchmarks=tmp_path,
        questions=empty("questions"),
        out=tmp_path / "report.html",
    )
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert words.count("No rows") == 6
    assert "No accuracy was measured" in words


def test_samples_hold_coded_pairs_and_stay_the_same(tmp_path):
    samples = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        page = make_report(tmp_path / name, trees=12, text="plain")
        samples.append(re.findall(r"synthetic question (\d+)\?</h3>", page))
    assert samples[0] == samples[1]
    assert all(int(tree) % 3 for tree in samples[0]), "only trees with coded pairs"
    pairs = page[page.index('<section id="pairs"') :]
    assert 'class="chip">accept<' in pairs and 'class="chip">resist<' in pairs


def test_missing_artifact_is_named_and_no_report_is_left(tmp_path):
    make_report(tmp_path, trees=2)
    (tmp_path / "report.html").unlink()
    with pytest.raises(PbtError, match="scored"):
        build_report(
            make_config([12], tmp_path),
            funnel=tmp_path / "funnel.parquet",
            metrics=tmp_path / "metrics.parquet",
            training=[],
            selection=[],
            scored=[tmp_path / "gone.parquet"],
            pairs=[],
            benchmarks=tmp_path,
            questions=tmp_path / "questions.parquet",
            out=tmp_path / "report.html",
        )
    assert not (tmp_path / "report.html").exists()


def test_tree_draws_every_turn_without_overlap():
    nodes = make_nodes(1, "text")
    drawn = draw_tree(nodes, "a tree")
    places = re.findall(r'class="card \w+" x="(\d+)" y="([\d.]+)"', drawn)
    assert len(places) == len(nodes) == len(set(places))
    assert drawn.count('class="edge"') == len(nodes) - 1
    for x in {x for x, _ in places}:
        ys = sorted(float(y) for at, y in places if at == x)
        assert all(b - a >= 66 for a, b in zip(ys, ys[1:], strict=False))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (4.21, "4.2 s"),
        (59.97, "1 min 00 s"),
        (200, "3 min 20 s"),
        (1505, "25 min"),
        (18420, "5 h 07 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
