"""A range of partitions in one run, as a backfill requests it: every partition has its own record, version and checks."""

from __future__ import annotations

import dagster as dg

from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES
from fmaudit_core.storage.atomic_write import PublishError
from fmaudit_core.storage.warehouse import Cell
from tests.platform.conftest import made, reconfigured, run
from tests.platform.test_next_steps import land

ENCODERS = ("efficientnet_lite0", "hu_histogram")
KEYS = [f"{name}|pe" for name in ENCODERS]


def make_range(workspace, assets, first, last):
    """What one run of a backfill does, in this process: its success, its id, and what it failed with."""
    from fmaudit_dagster.definitions import definitions_for
    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.run_history import why_failed

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = definitions_for(workspace.audit_yaml).resolve_implicit_global_asset_job_def()
    with opened(workspace) as instance:
        result = job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(name) for name in assets], raise_on_error=False, tags=tags
        )
        return result.success, result.run_id, "" if result.success else why_failed(instance, result.run_id)


def records(workspace, asset, run_id):
    """The materialisations of an asset in a run, by partition."""
    from fmaudit_dagster.execution.instance import opened

    with opened(workspace) as instance:
        found = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset)), limit=100).records
        of_run = [one for one in found if one.run_id == run_id]
        assert len({one.partition_key for one in of_run}) == len(of_run)  # each once
        return {one.partition_key: one.asset_materialization for one in of_run}


def test_every_partition_of_a_range_has_its_own_version_metadata_and_provenance(copied):
    from fmaudit_dagster.execution.instance import opened

    versions = {key: copied.warehouse.version("subgroup_metrics", Cell(*key.split("|"))) for key in KEYS}
    before = copied.warehouse.read_cells("fairness_gaps", [Cell(*key.split("|")) for key in KEYS])
    success, run_id, why = make_range(copied, ["probe_predictions", *FAIRNESS_TABLES], KEYS[0], KEYS[-1])
    assert success, why
    for asset in FAIRNESS_TABLES:
        assert sorted(records(copied, asset, run_id)) == KEYS
    found = records(copied, "subgroup_metrics", run_id)
    assert {key: one.tags["dagster/data_version"] for key, one in found.items()} == versions
    assert len(set(versions.values())) == 2
    first, second = found.values()
    assert first.metadata["udr"] != second.metadata["udr"]  # each its own plot
    for key, one in found.items():
        assert one.metadata["dagster/row_count"].value > 0
        assert f"encoder={key.split('|')[0]}" in one.metadata["path"].value
        assert one.tags["dagster/partition/task"] == "pe"
        assert one.tags["dagster/input_data_version/probe_predictions"]
    assert copied.warehouse.read_cells("fairness_gaps", [Cell(*key.split("|")) for key in KEYS]).equals(before)
    assert made(run(copied)) == []  # as fresh as after `fmaudit run`
    with opened(copied) as instance:
        assert stale_status(copied, instance, "subgroup_metrics", KEYS[0]) == "FRESH"


def stale_status(workspace, instance, asset, key):
    """What the UI's badge is drawn from."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.definitions.partitions.context import partition_loading_context
    from dagster._core.loader import LoadingContextForTest

    from fmaudit_dagster.definitions import definitions_for

    graph = definitions_for(workspace.audit_yaml).resolve_asset_graph()
    with partition_loading_context(dynamic_partitions_store=instance):
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return resolver.get_status(dg.AssetKey(asset), key).value


def test_checks_of_a_range_are_recorded_for_each_partition(copied):
    from fmaudit_dagster.execution.instance import opened

    _, run_id, _ = make_range(copied, ["probe_predictions"], KEYS[0], KEYS[-1])
    with opened(copied) as instance:
        logged = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        results = {one.dagster_event.asset_check_evaluation_data.partition: one for one in logged}
        assert sorted(results) == KEYS
        assert len(logged) == 2
        for key, one in results.items():
            evaluation = one.dagster_event.asset_check_evaluation_data
            assert evaluation.passed
            assert evaluation.check_name == "every_known_label_is_scored"
            (made_it,) = instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey("probe_predictions"), asset_partitions=[key]), limit=1
            ).records
            assert evaluation.target_materialization_data.storage_id == made_it.storage_id


def failing_for(monkeypatch, encoder, error):
    import fmaudit_dagster.assets.probes as probes

    fit, tried = probes.fit_encoder, []

    def fit_or_fail(workspace, spec, **options):
        tried.append(spec.name)
        if spec.name == encoder and (len(tried) <= 2 or not isinstance(error, PublishError)):
            raise error
        return fit(workspace, spec, **options)

    monkeypatch.setattr(probes, "fit_encoder", fit_or_fail)
    return tried


def test_a_cell_that_fails_keeps_none_of_the_others_from_being_made(copied, monkeypatch):
    tried = failing_for(monkeypatch, ENCODERS[0], EncoderError("12 studies have no embedding."))
    success, run_id, why = make_range(copied, ["probe_fits"], *ENCODERS)
    assert not success
    assert tried == list(ENCODERS)
    assert list(records(copied, "probe_fits", run_id)) == [ENCODERS[1]]
    assert why == (
        "1 of 2 cells of probe_fits failed, the others were made. efficientnet_lite0: 12 studies have no embedding."
    )


def test_where_the_surroundings_failed_only_what_is_missing_is_tried_again(copied, monkeypatch):
    from fmaudit_dagster.assets import step_asset

    assert step_asset.RETRIES.max_retries == 2
    monkeypatch.setattr("time.sleep", lambda _: None)
    tried = failing_for(monkeypatch, ENCODERS[0], PublishError("no space left on device."))
    success, run_id, why = make_range(copied, ["probe_fits"], *ENCODERS)
    assert success, why
    assert tried == [*ENCODERS, ENCODERS[0]]
    assert sorted(records(copied, "probe_fits", run_id)) == list(ENCODERS)


def test_a_partition_with_nothing_to_make_is_recorded_with_the_reason(copied):
    from fmaudit_dagster.execution.instance import opened

    with opened(copied) as instance:
        for asset, key in (("neural_fits", "hu_histogram"), ("adjusted_gaps", KEYS[0])):
            (record,) = instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key]), limit=2
            ).records
            assert record.asset_materialization.metadata["nothing to make"].value
    assert copied.warehouse.version("neural_fits", Cell("hu_histogram")) is None
    success, run_id, why = make_range(copied, ["neural_fits"], *ENCODERS)
    assert success, why
    found = records(copied, "neural_fits", run_id)
    assert "a control has the linear probe only" in found["hu_histogram"].metadata["nothing to make"].value
    assert made(run(copied)) == []


def test_what_had_nothing_to_make_is_made_once_it_has(copied):
    again = made(run(reconfigured(copied, covariates=["sex"]), encoders=["hu_histogram"], tasks=["pe"]))
    assert "adjusted_gaps hu_histogram x pe" in again


def test_the_sensor_leaves_the_assets_of_a_backfill_to_it(copied):
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    from fmaudit_dagster.execution.instance import opened
    from fmaudit_dagster.execution.run_history import running_steps, with_backfills
    from tests.platform.test_sensors import look

    land(copied, "second", variant="other")
    with opened(copied) as instance:
        instance.add_backfill(
            PartitionBackfill(
                backfill_id="one",
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=1.0,
                asset_selection=[dg.AssetKey("study_embeddings"), dg.AssetKey("probe_fits")],
            )
        )
        assert ("probe_fits", "*") in with_backfills(running_steps(instance), instance).making
    assert not look(copied, "registry_sensor").run_requests
    with opened(copied) as instance:
        instance.update_backfill(instance.get_backfill("one").with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert [one.partition_key for one in look(copied, "registry_sensor").run_requests] == ["second"]
