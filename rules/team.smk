"""Team evaluation: two models discuss every question, in both orders, one model per job.

Needs
  <resources>/models/{model}/, <resources>/models/{partner}/, and the extractor
  <results>/adapters/{model}/{recipe}/seed{seed}/selected/   for the strong model's turns
  <results>/questions/evaluation.parquet

Makes, below <results>/evaluations/team/{model}/{recipe}/seed{seed}/{partner}/
  {order}/turn{turn}.replies.parquet   turns so far, the newest without answers
  {order}/turn{turn}.parquet           the same with answers
  {order}.parquet                      the discussions as judged replies
"""


rule team_turn:
    input:
        questions="<results>/questions/evaluation.parquet",
        model=lambda wildcards: f"resources/models/{team_speaker(wildcards)}",
        adapter=lambda wildcards: (selected_adapter(wildcards) if speaks_strong(wildcards) else []),
        nodes=team_turn_before,
    output:
        f"{team_folder}/turn{{turn}}.replies.parquet",
    log:
        "<logs>/team_turn/{model}.{recipe}.seed{seed}.{partner}.{order}.turn{turn}.log",
    benchmark:
        "<benchmarks>/team_turn/{model}.{recipe}.seed{seed}.{partner}.{order}.turn{turn}.tsv"
    conda:
        lambda wildcards: generation_env(team_speaker(wildcards))
    threads: run.runtime.threads
    resources:
        gpu=lambda wildcards: gpus(team_speaker(wildcards)),
    params:
        config=resolved,
        team=section(run.evaluations.team, exclude={"partners"}),
        name=team_speaker,
        model=lambda wildcards: source_of(team_speaker(wildcards)),
        prompts=prompts(run.evaluations.team.role),
        nodes=lambda wildcards, input: "--nodes" if input.nodes else "",
        adapter=lambda wildcards, input: "--adapter" if input.adapter else "",
    shell:
        "pbt team-turn --config {params.config:q} --questions {input.questions:q}"
        " --model {input.model:q} --name {params.name:q} --turn {wildcards.turn}"
        " {params.nodes} {input.nodes:q} {params.adapter} {input.adapter:q}"
        " --out {output:q} >{log:q} 2>&1"


rule team_extract:
    input:
        questions="<results>/questions/evaluation.parquet",
        nodes=f"{team_folder}/turn{{turn}}.replies.parquet",
        model=extractor_model,
    output:
        f"{team_folder}/turn{{turn}}.parquet",
    log:
        "<logs>/team_extract/{model}.{recipe}.seed{seed}.{partner}.{order}.turn{turn}.log",
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
        "pbt extract --team --config {params.config:q} --questions {input.questions:q}"
        " --nodes {input.nodes:q} --turn {wildcards.turn} {params.model} {input.model:q}"
        " --out {output:q} >{log:q} 2>&1"


rule team_responses:
    input:
        questions="<results>/questions/evaluation.parquet",
        nodes=f"{team_folder}/turn{run.evaluations.team.turns - 1}.parquet",
    output:
        f"{team_folder}.parquet",
    log:
        "<logs>/team_responses/{model}.{recipe}.seed{seed}.{partner}.{order}.log",
    conda:
        "../envs/analyze.yaml"
    params:
        config=resolved,
    shell:
        "pbt team-responses --config {params.config:q} --questions {input.questions:q}"
        " --nodes {input.nodes:q} --name {wildcards.model:q} --recipe {wildcards.recipe}"
        " --seed {wildcards.seed} --partner {wildcards.partner:q} --order {wildcards.order}"
        " --out {output:q} >{log:q} 2>&1"
