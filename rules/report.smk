"""The report: one HTML file that opens from disk.

Needs
  <results>/funnel.parquet, <results>/metrics.parquet, <results>/questions/trees.parquet
  <results>/trees/shard{shard}/scored.parquet and pairs.parquet
  <results>/adapters/{model}/{recipe}/seed{seed}/*.parquet     curves and dev accuracies

Makes
  <results>/report.html
"""


rule write_report:
    input:
        funnel="<results>/funnel.parquet",
        metrics="<results>/metrics.parquet",
        questions="<results>/questions/trees.parquet",
        scored=collect("<results>/trees/shard{shard}/scored.parquet", shard=shards),
        pairs=collect("<results>/trees/shard{shard}/pairs.parquet", shard=shards),
        training=training_curves,
        selection=collect(
            "<results>/adapters/{model}/{recipe}/seed{seed}/selection.parquet",
            model=run.train.models,
            recipe=run.train.recipes,
            seed=run.train.seeds,
        ),
    output:
        "<results>/report.html",
    log:
        "<logs>/write_report.log",
    conda:
        "../envs/analyze.yaml"
    params:
        config=resolved,
        scored=lambda wildcards, input: repeated("--scored", input.scored),
        pairs=lambda wildcards, input: repeated("--pairs", input.pairs),
        training=lambda wildcards, input: repeated("--training", input.training),
        selection=lambda wildcards, input: repeated("--selection", input.selection),
        benchmarks=f"results/{run.run}/benchmarks",
    shell:
        "pbt report --config {params.config:q} --funnel {input.funnel:q}"
        " --metrics {input.metrics:q} --questions {input.questions:q} {params.scored}"
        " {params.pairs} {params.training} {params.selection}"
        " --benchmarks {params.benchmarks:q} --out {output:q} >{log:q} 2>&1"
