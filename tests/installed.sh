#!/usr/bin/env bash
# What somebody does who has nothing but the wheel: bash tests/installed.sh WHEEL [PYTHON]
set -euo pipefail
wheel=$(realpath "$1") python=${2:-python3} folder=$(mktemp -d) here=$(realpath "$(dirname "$0")")
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
jaxgan digits --steps 300 --run-dir runs/digits
jaxgan evaluate runs/digits --metrics swd
jaxgan sample runs/digits --num 16 --out samples.png
jaxgan reproduce runs/digits
jaxgan report runs/digits
python -c "from jaxgan_experiments import open_run; print(open_run('runs/digits').state.step)"

# The report, as a browser shows it.
if command -v chromium google-chrome >browser.txt; then
    python -m pip install --quiet --disable-pip-version-check playwright
    python "$here/browsed.py" "$(head -1 browser.txt)" runs/digits/report.html
else
    echo "no Chromium here: the report isn't looked at"
fi

# What is exported, by the words of its card, where there is only jax.
jaxgan export runs/digits --out exported
sed -n '/^```python$/,/^```$/p' exported/README.md | sed '/^```/d' >exported/use.py
"$python" -m venv elsewhere
elsewhere/bin/python -m pip install --quiet --disable-pip-version-check jax flatbuffers
(cd exported && ../elsewhere/bin/python -c "exec(open('use.py').read()); assert samples.shape == (4, 8, 8, 1)")
