"""Wrong configurations: every one is refused before a job starts, with its key and a hint.

Each case is one change to a preset that a tired person could make.
"""

import copy
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_configs import CASES, changed, refused

import pbt_workflow.config as settings_of
from pbt_workflow.config import load_config, read_config
from pbt_workflow.errors import PbtError

FILES = [*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "influence").glob("*.yaml")]
# By their paths in config/, without the ending.
PRESETS = {
    str(path.relative_to(ROOT / "config").with_suffix("")): path.read_text("utf-8")
    for path in FILES
}
VALUES = {name: yaml.safe_load(text) for name, text in PRESETS.items()}


@pytest.fixture(scope="module", autouse=True)
def in_the_repository():
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


def test_there_are_many_mutations():
    counts = Counter(preset for preset, *_ in CASES)
    assert counts["smoke"] >= 100 and counts["influence/smoke"] + counts["microworld"] >= 60


@pytest.mark.parametrize(
    ("preset", "path", "value", "key"),
    CASES,
    ids=[f"{preset}:{path}={value!r}" for preset, path, value, _ in CASES],
)
def test_a_wrong_preset_is_refused_and_its_key_named(preset, path, value, key):
    error = refused(changed(VALUES[preset], path, value))
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
