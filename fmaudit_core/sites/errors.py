"""Errors of files that are exchanged between sites, each with a name that the documentation explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fmaudit_core.common.errors import FmauditError

#: name of an error -> what it means
ERRORS: Final[Mapping[str, str]] = {
    "not_our_file": "The file is not JSON, or is not the kind of file that the command reads.",
    "version_differs": "The file was written in another major version of its format.",
    "invalid_file": "A key of the file is missing, unknown or out of range.",
    "edited_file": "The file was changed after it was exported: its content does not match its checksum.",
    "membership_leak": "The probe has fewer than 10 training studies per dimension, so that its coefficients may show who was "
    "in the training set.",
    "encoder_differs": "The encoders have different weights, preprocessing or view, although they have the same name; or no "
    "encoder here is the one of the probe.",
    "dimension_differs": "The embeddings have another length than the coefficients of the probe.",
    "pooling_differs": "There are no embeddings in the pooling that the probe reads.",
    "task_differs": "The outcome of the probe is not an outcome here.",
    "policy_unknown": "The probe has no threshold of that policy.",
    "no_common_studies": "No study has both an embedding and a row in the table.",
    "audit_older": "The report is not of the predictions here, or was written by an earlier version.",
    "bands_differ": "An attribute is grouped into other bands, or its subgroups are spelled differently.",
    "probe_differs": "Sites assessed different probes of the same encoder, so that the pooled gap is not of one model.",
    "threshold_policy_differs": "Operating thresholds were chosen by different policies, or with different targets.",
    "label_source_differs": "Outcomes come from different sources, such as reports and codes.",
    "same_patients_possible": "Two files have the same site name, or equal counts in all subgroups of an attribute.",
    "too_few_sites": "Fewer than two files were given.",
    "nothing_in_common": "No encoder, task, attribute and subgroup is in two of the files.",
}


class SiteError(FmauditError):
    """A file from another site, or one for another site, cannot be used.

    Parameters
    ----------
    name : str
        One of `ERRORS`; the message begins with it.
    """

    def __init__(self, name: str, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        if name not in ERRORS:
            raise KeyError(name)
        self.name = name
        super().__init__(f"{name}: {what}", where=where, fix=fix)
