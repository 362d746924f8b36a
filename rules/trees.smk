"""Dialogue trees: every shard grows turn by turn, then is filtered and scored.

Needs
  <results>/questions/trees.parquet
  <resources>/models/{model}/                            agents, extractor, filter

Makes
  <results>/trees/shard{shard}/turn{turn}.replies.parquet   turns so far, the newest without answers
  <results>/trees/shard{shard}/turn{turn}.parquet           the same with answers
  <results>/trees/shard{shard}/filtered.parquet             all turns with the filter's probabilities
  <results>/trees/shard{shard}/scored.parquet               all turns with scores
"""


rule generate_turn:
    input:
        questions="<results>/questions/trees.parquet",
        model=agent_model,
        nodes=turn_before,
    output:
        "<results>/trees/shard{shard}/turn{turn}.replies.parquet",
    log:
        "<logs>/generate_turn/shard{shard}.turn{turn}.log",
    benchmark:
        "<benchmarks>/generate_turn/shard{shard}.turn{turn}.tsv"
    conda:
        lambda wildcards: generation_env(agent(wildcards))
    threads: run.runtime.threads
    resources:
        gpu=lambda wildcards: gpus(agent(wildcards)),
    params:
        config=resolved,
        trees=section(run.trees),
        agent=lambda wildcards: source_of(agent(wildcards)),
        prompts=prompts(*sorted({role for depth in run.trees.depths for role in depth.roles})),
        nodes=lambda wildcards, input: "--nodes" if input.nodes else "",
    shell:
        "pbt generate --config {params.config:q} --questions {input.questions:q}"
        " --model {input.model:q} --shard {wildcards.shard} --turn {wildcards.turn}"
        " {params.nodes} {input.nodes:q} --out {output:q} >{log:q} 2>&1"


rule extract_answers:
    input:
        questions="<results>/questions/trees.parquet",
        nodes="<results>/trees/shard{shard}/turn{turn}.replies.parquet",
        model=extractor_model,
    output:
        "<results>/trees/shard{shard}/turn{turn}.parquet",
    log:
        "<logs>/extract_answers/shard{shard}.turn{turn}.log",
    benchmark:
        "<benchmarks>/extract_answers/shard{shard}.turn{turn}.tsv"
    conda:
        generation_env(extractor)
    threads: 1 if extractor is None else run.runtime.threads
    resources:
        gpu=0 if extractor is None else gpus(extractor),
    params:
        config=resolved,
        extraction=section(run.extraction),
        extractor="" if extractor is None else source_of(extractor),
        prompts=prompts(run.extraction.prompt),
        model=extractor_flag,
    shell:
        "pbt extract --config {params.config:q} --questions {input.questions:q}"
        " --nodes {input.nodes:q} --turn {wildcards.turn} {params.model} {input.model:q}"
        " --out {output:q} >{log:q} 2>&1"


rule filter_disagreement:
    input:
        questions="<results>/questions/trees.parquet",
        nodes=turns_of_shard,
        model=collect("<resources>/models/{model}", model=run.filter.model),
    output:
        "<results>/trees/shard{shard}/filtered.parquet",
    log:
        "<logs>/filter_disagreement/shard{shard}.log",
    benchmark:
        "<benchmarks>/filter_disagreement/shard{shard}.tsv"
    conda:
        generation_env(run.filter.model)
    threads: run.runtime.threads
    resources:
        gpu=gpus(run.filter.model),
    params:
        config=resolved,
        filter=section(run.filter),
        pairs=section(run.pairs, exclude={"split_seed"}),
        model=source_of(run.filter.model),
        prompts=prompts(run.filter.answers_prompt, run.filter.responses_prompt),
    shell:
        "pbt filter --config {params.config:q} --questions {input.questions:q}"
        " --nodes {input.nodes:q} --model {input.model:q} --out {output:q} >{log:q} 2>&1"


rule score_trees:
    input:
        questions="<results>/questions/trees.parquet",
        nodes="<results>/trees/shard{shard}/filtered.parquet",
    output:
        "<results>/trees/shard{shard}/scored.parquet",
    log:
        "<logs>/score_trees/shard{shard}.log",
    conda:
        "../envs/analyze.yaml"
    params:
        score=run.pairs.score,
    shell:
        "pbt score --nodes {input.nodes:q} --questions {input.questions:q}"
        " --score {params.score} --out {output:q} >{log:q} 2>&1"
