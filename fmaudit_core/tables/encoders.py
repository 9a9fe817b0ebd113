"""Tables of the encoders themselves, apart from any outcome."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import integer, text
from fmaudit_core.tables.table import ENCODER, declare

ENCODER_SENSITIVITY: Final = declare(
    "encoder_sensitivity",
    "How far an alteration of the CT moves an encoder's embedding, as `fmaudit encoders check` measured it last.",
    per=ENCODER,
    key="encoder alteration",
    rest="kind status n cosine cosine_min relative_distance scans spec_digest",
    special={
        "kind": text(
            "`patient` for pairs of patients; `axis` what an encoder should see; `input` another preprocessing than declared; "
            "`noise` what should make no difference"
        ),
        "status": text(
            "`measured`; `not_applicable` to the encoder's view; `not_estimable` if different patients have the same embedding"
        ),
        "n": integer("scans, or pairs of patients"),
    },
)
