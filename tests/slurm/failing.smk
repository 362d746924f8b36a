"""Jobs that go wrong once: each counts its attempts in a file that is not an output.

HF_TOKEN has to reach jobs, or the test that it is written nowhere would show nothing.
"""

ATTEMPT = "mkdir -p attempts; echo >> attempts/{rule}; attempt=$(wc -l < attempts/{rule}); "


rule all:
    default_target: True
    input:
        collect("{name}.txt", name=["overruns", "cancelled", "fails", "preempted"]),


rule overruns:
    output:
        "overruns.txt",
    resources:
        runtime=1,
    shell:
        ATTEMPT + "[ $attempt = 2 ] || sleep 600; echo $attempt > {output}"


rule cancelled:
    output:
        "cancelled.txt",
    shell:
        ATTEMPT + "[ $attempt = 2 ] || sleep 600; echo $attempt > {output}"


rule fails:
    output:
        "fails.txt",
    shell:
        ATTEMPT + '[ "$HF_TOKEN" ] && [ $attempt = 2 ]; echo $attempt > {output}'


rule preempted:
    output:
        "preempted.txt",
    shell:
        ATTEMPT + "[ $attempt = 2 ] || sleep 600; echo $attempt > {output}"
