"""The manifests of `deploy/`: valid to the letter for Kubernetes, of one version, without secrets. No cluster is started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
#: what is not part of Kubernetes itself
_OTHERS = ("Kustomization", "RayCluster")


def documents():
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.parent.name != "config":
            for document in yaml.safe_load_all(path.read_text()):
                yield path, document


def validate(document):
    kubernetes_validate.validate(document, "1.33", strict=True)


def pod_templates(node):
    """Every pod template in a document."""
    if isinstance(node, dict):
        if "template" in node:
            yield node["template"]
        for value in node.values():
            yield from pod_templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_templates(value)


@pytest.mark.parametrize(
    ("path", "document"),
    [one for one in documents() if one[1]["kind"] not in _OTHERS],
    ids=lambda one: one.name if isinstance(one, Path) else f"{one['kind']}-{one['metadata']['name']}",
)
def test_a_manifest_is_valid(path, document):
    validate(document)


def test_pods_of_the_ray_cluster_are_valid_and_of_the_pinned_version():
    (cluster,) = [document for _, document in documents() if document["kind"] == "RayCluster"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        validate({"apiVersion": "v1", "kind": "Pod", **group["template"]} | {"metadata": {"name": "one"}})
    pinned = yaml.safe_load(f"[{(DEPLOY.parent / 'pyproject.toml').read_text().split('ray = [')[1].split(']')[0]}]")
    assert pinned == [f"ray=={cluster['spec']['rayVersion']}"]
    assert pinned[0] in (DEPLOY.parent / "constraints.txt").read_text().splitlines()
    assert f"ray[default]=={cluster['spec']['rayVersion']}" in (DEPLOY / "Dockerfile").read_text()


def test_no_container_runs_as_root():
    templates = [template for _, document in documents() for template in pod_templates(document)]
    assert len(templates) == 7
    for template in templates:
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_everything_a_kustomization_names_is_there():
    files = [path for path, document in documents() if document["kind"] == "Kustomization"]
    assert len(files) == 3
    for path in files:
        settings = yaml.safe_load(path.read_text())
        named = [*settings["resources"], *(f for one in settings.get("configMapGenerator", ()) for f in one["files"])]
        assert [name for name in named if not (path.parent / name).exists()] == []


def test_all_pods_are_behind_a_policy():
    (policy,) = [one for _, one in documents() if one["kind"] == "NetworkPolicy" and not one["spec"]["podSelector"]]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]


def test_the_entrypoint_runs_what_it_is_given():
    shell = ["sh", str(DEPLOY / "entrypoint.sh"), "echo", "one  two"]
    assert (
        subprocess.run(shell, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}).stdout
        == "one  two\n"
    )
