#!/usr/bin/env bash
# Builds the wheel and tries it in an empty environment, without extras: the statistics must work there alone.
set -euo pipefail
cd "$(dirname "$0")/.."
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
"${PYTHON:-python3.11}" -m venv "$room/env"
"$room/env/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$room" .
"$room/env/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$room"/fmaudit-*.whl
cd "$room"
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
PYTHON
env/bin/fmaudit assess --predictions predictions.csv --attributes site --out found | tee told.txt
grep -q "disparity" told.txt
test -s found/index.html && test -s found/fairness_gaps.parquet
for heavy in torch dagster psutil pydicom gdcm pylibjpeg jpeg_ls nibabel PIL zstandard; do
  if env/bin/python -c "import $heavy" 2>/dev/null; then echo "$heavy was installed without its extra" >&2; exit 1; fi
done
if env/bin/fmaudit series . 2>told.txt; then echo "fmaudit series worked without its extra" >&2; exit 1; fi
grep -q "fmaudit\[imaging\]" told.txt
env/bin/fmaudit init --phantom >/dev/null
if env/bin/fmaudit run 2>told.txt; then echo "fmaudit run worked without its extra" >&2; exit 1; fi
grep -q "fmaudit\[platform\]" told.txt
echo "The wheel works without extras."
