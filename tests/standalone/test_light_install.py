"""`pip install fmaudit` without extras: what it must do without, and what it says when something more is asked for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

#: imported in an interpreter that finds none of the packages of the extras
WITHOUT = """
import importlib, importlib.abc, sys
EXTRAS = "PIL dagster gdcm h5py jpeg_ls nibabel obstore pydicom pylibjpeg sklearn torch zstandard".split()

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from fmaudit_core.common.errors import MissingExtraError
LIGHT = ("standalone.assess_file", "encoders.imported", "setup.doctor", "setup.propose_config", "pipeline.run_cohort",
         "pipeline.run_embeddings", "pipeline.run_report", "pipeline.stale_steps", "sites.export_summary", "sites.write_pooled",
         "sites.pooling", "sites.apply_probe")
for module in LIGHT:
    importlib.import_module(f"fmaudit_core.{module}")
import fmaudit_dagster.cli.main
"""
STORE = """
from pathlib import Path
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.config import Audit, PhantomCohort
Workspace(Audit(cohort=PhantomCohort(kind="phantom")), Path("audit.yaml")).slices
"""
SERIES = """
from click.testing import CliRunner
done = CliRunner().invoke(fmaudit_dagster.cli.main.main, ["series", "."])
assert done.exit_code == 2
raise MissingExtraError("x", done.output)
"""


BUCKET = """
from pathlib import Path
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.config import Audit, PhantomCohort
Workspace(Audit(cohort=PhantomCohort(kind="phantom"), root="s3://audit/prod"), Path("audit.yaml")).warehouse.tables()
"""


@pytest.mark.parametrize(("extra", "body"), [("imaging", STORE), ("imaging", SERIES), ("cloud", BUCKET)])
def test_without_extras_all_that_needs_no_image_is_imported_and_the_rest_names_its_extra(extra, body):
    tried = f"try:\n{textwrap.indent(body, '    ')}\nexcept MissingExtraError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", WITHOUT + tried], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"needs the optional part `{extra}`" in " ".join(done.stdout.split())
    assert f"pip install 'fmaudit[{extra}]'" in " ".join(done.stdout.split())
