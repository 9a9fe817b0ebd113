"""The section `exploration`."""

from __future__ import annotations

from fmaudit_core.config.section import Section


class ExplorationSection(Section):
    """Exploratory steps after the findings. They change no verdict."""

    #: refit the probes with equal training counts of every subgroup, and compare gaps with refits of the same size at random
    training_counts: bool = True
    #: search for subgroups that nobody named and that are missed more often than their scores predict
    discovered_subgroups: bool = True
