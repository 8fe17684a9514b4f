#!/usr/bin/env bash
# What somebody does who has nothing but the wheel: bash tests/installed.sh WHEEL [PYTHON]
set -euo pipefail
wheel=$(realpath "$1") python=${2:-python3} folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$python" -m venv env
PATH=$folder/env/bin:$PATH
export XDG_CACHE_HOME=$folder/cache

python -m pip install --quiet --disable-pip-version-check "$wheel"
python -c "import jaxgan, jaxgan.losses, jaxgan.models, jaxgan.data"
jaxgan --help >help.txt
grep -q "^  digits " help.txt
if jaxgan digits 2>missing.txt; then exit 1; fi
grep -qx "error: tyro isn't installed: pip install 'jaxgan\[train\]', or 'jaxgan\[all\]' for everything" missing.txt

python -m pip install --quiet --disable-pip-version-check "$wheel[all]"
mkdir experiments # as a user may have
jaxgan digits --steps 20 --run-dir runs/digits
jaxgan evaluate runs/digits --metrics swd
jaxgan sample runs/digits --num 16 --out samples.png
jaxgan reproduce runs/digits
python -c "from jaxgan_experiments import open_run; print(open_run('runs/digits').state.step)"
