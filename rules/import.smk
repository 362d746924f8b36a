"""Finished dialogue trees in place of grown ones.

Needs
  the files of `questions.trees.trajectories`

Makes
  <results>/questions/trees.parquet
  <results>/trees/shard{shard}/imported.parquet   all turns with answers, as turn3.parquet elsewhere
"""


localrules:
    import_trajectories,


rule import_trajectories:
    input:
        run.questions.trees.trajectories,
    output:
        questions="<results>/questions/trees.parquet",
        nodes=collect("<results>/trees/shard{shard}/imported.parquet", shard=shards),
    log:
        "<logs>/import_trajectories.log",
    conda:
        "../envs/analyze.yaml"
    params:
        dataset=run.questions.trees.dataset,
        nodes=lambda wildcards, input, output: repeated("--nodes", output.nodes),
    shell:
        "pbt import-trajectories {input:q} {params.nodes} --questions {output.questions:q}"
        " --dataset {params.dataset:q} >{log:q} 2>&1"
