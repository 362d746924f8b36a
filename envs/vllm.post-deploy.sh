#!/usr/bin/env bash
# The environment holds the libraries; this adds the package itself, from the folder snakemake runs in.
set -euo pipefail
python -m pip install --no-deps "$PWD"
