"""Snakemake in its own environment sends the jobs of a vLLM model to the one with vLLM."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from checkouts import ROOT

from pbt_workflow import tables

OTHER = f"{ROOT}/.venv/bin{os.pathsep}{os.environ['PATH']}"


def test_turns_and_filter_of_a_run(model, tmp_path):
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    values.pop("analysis")
    values["train"] = {"models": ["smollm2"]}
    values["evaluations"] = {"run": []}
    values["models"]["smollm2"] = {
        "source": {"type": "path", "path": str(model.resolve())},
        "engine": "vllm",
    }
    values["questions"].pop("evaluation")
    values["questions"]["trees"] |= {"path": str(ROOT / "data/easy/questions.jsonl"), "limit": 4}
    values["trees"] |= {"shards": 1, "depths": [{"roles": ["standard"], "samples": 2}] * 2}
    values["prompts"] = {name: str(ROOT / path) for name, path in values["prompts"].items()}
    values["runtime"] = {"vllm": {"environment": sys.prefix}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    snakemake = shutil.which("snakemake", path=OTHER)
    assert snakemake, "no snakemake in .venv or on the path; `make setup` installs it"
    filtered = "results/demo/trees/shard0/filtered.parquet"
    done = subprocess.run(
        [snakemake, filtered, "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
        + ["--cores", "1", "--configfile", tmp_path / "config.yaml"],
        env=os.environ | {"PATH": f"{Path(snakemake).parent}{os.pathsep}{OTHER}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = tables.read_table(tmp_path / filtered, "filtered")
    assert nodes["depth"].unique().sort().to_list() == [0, 1]
    # Only vLLM shares by whole blocks.
    shared = nodes["cached_tokens"]
    assert shared.max() > 0 and (shared % 16 == 0).all()
