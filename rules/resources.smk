"""Models, adapters and data, fetched once and shared by all runs.

Needs
  the sources named in the config; the network only for those on a hub or in a package index

Makes
  <resources>/models/{model}/             safetensors, config, tokenizer
  <resources>/adapters/{adapter}/         published adapters, or folders of them
  <resources>/misinformation/{dataset}/   NQ1.jsonl, NQ2.jsonl, Boolq.jsonl, TruthfulQA.jsonl
  <resources>/questions/{source}.{dataset}.*   question files from a hub
  <results>/questions/{source}.parquet    the run's questions, checked and sampled
"""


localrules:
    fetch_model,
    fetch_adapter,
    fetch_misinformation,
    fetch_questions,
    prepare_questions,


rule fetch_model:
    output:
        directory("<resources>/models/{model}"),
    log:
        "<logs>/fetch_model/{model}.log",
    conda:
        "../envs/train.yaml"
    params:
        config=resolved,
        source=lambda wildcards: section(run.models[wildcards.model].source),
    shell:
        "pbt fetch-model --config {params.config:q} --name {wildcards.model:q}"
        " --out {output:q} >{log:q} 2>&1"


rule fetch_adapter:
    output:
        directory("<resources>/adapters/{adapter}"),
    log:
        "<logs>/fetch_adapter/{adapter}.log",
    conda:
        "../envs/train.yaml"
    params:
        config=resolved,
        source=lambda wildcards: section(run.adapters[wildcards.adapter].source),
    shell:
        "pbt fetch-adapter --config {params.config:q} --name {wildcards.adapter:q}"
        " --out {output:q} >{log:q} 2>&1"


rule fetch_misinformation:
    output:
        directory("<resources>/misinformation/{dataset}"),
    log:
        "<logs>/fetch_misinformation/{dataset}.log",
    conda:
        "../envs/train.yaml"
    params:
        config=resolved,
        files=section(farm.files),
        subsets=farm.subsets,
    shell:
        "pbt fetch-misinformation --config {params.config:q} --out {output:q} >{log:q} 2>&1"


rule fetch_questions:
    output:
        "<resources>/questions/{source}.{dataset}.{suffix}",
    log:
        "<logs>/fetch_questions/{source}.{dataset}.{suffix}.log",
    wildcard_constraints:
        suffix="parquet|jsonl",
    conda:
        "../envs/train.yaml"
    params:
        config=resolved,
        source=lambda wildcards: section(getattr(run.questions, wildcards.source)),
    shell:
        "pbt fetch-questions --config {params.config:q} --which {wildcards.source}"
        " --out {output:q} >{log:q} 2>&1"


rule prepare_questions:
    input:
        question_file,
    output:
        "<results>/questions/{source}.parquet",
    log:
        "<logs>/prepare_questions/{source}.log",
    conda:
        "../envs/analyze.yaml"
    params:
        config=resolved,
        source=lambda wildcards: section(getattr(run.questions, wildcards.source)),
    shell:
        "pbt questions --config {params.config:q} --which {wildcards.source}"
        " --file {input:q} --out {output:q} >{log:q} 2>&1"
