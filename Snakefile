"""Persuasion-Balanced Training, from questions to a report. A table of contents; see rules/."""

from snakemake.utils import min_version

min_version("9.27")


# Without any configuration this is the full reproduction. Presets are never merged.
if not config:

    configfile: "config/paper.yaml"


include: "rules/common.smk"


pathvars:
    results=f"results/{run.run}",
    logs=f"results/{run.run}/logs",
    benchmarks=f"results/{run.run}/benchmarks",


wildcard_constraints:
    model=one_of(run.models),
    recipe=one_of(["base", "accept", "resist", "pbt"]),
    split=one_of(["train", "dev", "test"]),
    seed=one_of(run.train.seeds),
    shard=one_of(range(run.trees.shards)),
    turn=one_of(range(len(run.trees.depths))),
    evaluation=one_of(["balanced", "flipflop", "dev"]),
    source=one_of(["trees", "evaluation"]),


include: "rules/resources.smk"
include: "rules/trees.smk"
include: "rules/preferences.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


# Settings reach jobs through this file; what a rule's result depends on is in its params.
onstart:
    write_resolved(run)


rule all:
    default_target: True
    input:
        "<results>/report.html",
