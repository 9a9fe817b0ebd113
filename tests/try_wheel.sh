#!/usr/bin/env bash
# Builds the wheel and tries it in empty environments of every Python found: the statistics without extras, an audit of
# embeddings computed elsewhere with the platform alone.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
first="${PYTHON:-python3.11}"
"$first" -m venv "$scratch/build"
"$scratch/build/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$scratch" .
constraints="$PWD/constraints.txt"

# the first interpreter, then one of each further version
pythons() {
  local seen="" candidate version
  for candidate in "$first" python3.11 python3.12 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-3].*/bin/python; do
    version="$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" || continue
    case "$version:$seen" in
      *" $version "*) ;;
      3.1[1-3]:*) seen="$seen $version "; echo "$candidate" ;;
    esac
  done
}

try_wheel() {
  local python="$1" folder
  folder="$(mktemp -d -p "$scratch")"
  "$python" -m venv "$folder/env"
  "$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -c "$constraints" "$scratch"/fmaudit-*.whl
  cd "$folder"
  env/bin/python - <<'PYTHON'
import numpy as np
import polars as pl

rng = np.random.default_rng(0)
n = 3_000
group, split = rng.choice(["a", "b"], n), rng.choice(["val", "test"], n, p=[0.3, 0.7])
y = rng.random(n) < 0.3
score = y * np.where(group == "a", 2.0, 0.5) + rng.normal(size=n)
ids = np.arange(n).astype(str)
frame = pl.DataFrame({"study_id": ids, "patient_id": ids, "split": split, "y_true": y, "y_score": score, "site": group})
frame.write_csv("predictions.csv")
cohort = frame.select("study_id", "patient_id", "site", age=pl.Series(rng.integers(20, 90, n)), pe=pl.col("y_true").cast(pl.Int8))
cohort.write_csv("cohort.csv")
np.savez("vectors.npz", study_id=ids, embedding=np.column_stack([score, rng.normal(size=(n, 7))]).astype(np.float32))
PYTHON
  env/bin/fmaudit assess --predictions predictions.csv --attributes site --out found | tee printed.txt
  grep -q "disparity" printed.txt
  test -s found/index.html && test -s found/fairness_gaps.parquet
  for heavy in torch dagster pydicom gdcm pylibjpeg jpeg_ls nibabel PIL zstandard; do
    if env/bin/python -c "import $heavy" 2>/dev/null; then echo "$heavy was installed without its extra" >&2; exit 1; fi
  done
  if env/bin/fmaudit series . 2>printed.txt; then echo "fmaudit series worked without its extra" >&2; exit 1; fi
  grep -q "fmaudit\[imaging\]" printed.txt
  env/bin/fmaudit -c phantom.yaml init --phantom >/dev/null
  if env/bin/fmaudit -c phantom.yaml run 2>printed.txt; then echo "fmaudit run worked without its extra" >&2; exit 1; fi
  grep -q "fmaudit\[platform\]" printed.txt

  env/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c "$constraints" "$(echo "$scratch"/fmaudit-*.whl)[platform]"
  mkdir audit && cp cohort.csv vectors.npz audit
  env/bin/fmaudit -c audit/audit.yaml init --table audit/cohort.csv >/dev/null
  printf 'mitigation: {enabled: false}\n' >>audit/audit.yaml
  env/bin/fmaudit -c audit/audit.yaml run | tee printed.txt
  grep -qi "site .*disparity" printed.txt
  echo "The wheel works on $("$python" --version)."
  cd "$scratch"
}

for python in $(pythons); do
  (try_wheel "$python")
done
