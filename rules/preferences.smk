"""Preferences: pairs of sibling turns per shard, then balanced sets per recipe and split.

Needs
  <results>/trees/shard{shard}/scored.parquet
  <results>/questions/trees.parquet

Makes
  <results>/trees/shard{shard}/pairs.parquet        every pair, with its split and code
  <results>/funnel.parquet                          where rows were lost
  <results>/preferences/{recipe}/{split}.parquet    balanced rows; test holds both sides
"""


rule pair_turns:
    input:
        questions="<results>/questions/trees.parquet",
        scored="<results>/trees/shard{shard}/scored.parquet",
    output:
        "<results>/trees/shard{shard}/pairs.parquet",
    log:
        "<logs>/pair_turns/shard{shard}.log",
    conda:
        "../envs/analyze.yaml"
    params:
        rules=" ".join(flags(*item) for item in run.pairs.model_dump().items()),
        prompt_file=run.prompts.get("standard", ""),
        prompt_flag="--standard-prompt" if "standard" in run.prompts else "",
        prompt=prompts("standard"),
    shell:
        "pbt pair --scored {input.scored:q} --questions {input.questions:q} {params.rules}"
        " {params.prompt_flag} {params.prompt_file:q} --out {output:q} >{log:q} 2>&1"


rule count_funnel:
    input:
        questions="<results>/questions/trees.parquet",
        scored=collect("<results>/trees/shard{shard}/scored.parquet", shard=shards),
        pairs=collect("<results>/trees/shard{shard}/pairs.parquet", shard=shards),
    output:
        "<results>/funnel.parquet",
    log:
        "<logs>/count_funnel.log",
    conda:
        "../envs/analyze.yaml"
    params:
        scored=lambda wildcards: tree_files("--scored", "scored"),
        pairs=lambda wildcards: tree_files("--pairs", "pairs"),
    shell:
        "pbt funnel {params.scored} {params.pairs} --questions {input.questions:q}"
        " --out {output:q} >{log:q} 2>&1"


rule balance_preferences:
    input:
        pairs=collect("<results>/trees/shard{shard}/pairs.parquet", shard=shards),
        funnel="<results>/funnel.parquet",
    output:
        "<results>/preferences/{recipe}/{split}.parquet",
    log:
        "<logs>/balance_preferences/{recipe}.{split}.log",
    conda:
        "../envs/analyze.yaml"
    params:
        pairs=lambda wildcards: tree_files("--pairs", "pairs"),
        seed=run.pairs.split_seed,
        shares=lambda wildcards: shares_of(wildcards.recipe),
    shell:
        "pbt balance {params.pairs} --funnel {input.funnel:q} --recipe {wildcards.recipe}"
        " {params.shares} --split {wildcards.split} --seed {params.seed}"
        " --out {output:q} >{log:q} 2>&1"
