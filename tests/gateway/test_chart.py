"""The Helm chart: its manifests fit each other, the image and the gateway; and the workflow that publishes both."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn", "yaml"):
    pytest.importorskip(needed)

import yaml  # noqa: E402

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway.config import load  # noqa: E402
from helpers import chart  # noqa: E402

ROOT = Path(__file__).parents[2]
KEYS = {"BUDGETEER_ADMIN_KEY": "0123456789abcdef", "OPENAI_API_KEY": "sk-upstream"}
GIVEN = {"image": {"repository": "ghcr.io/owner/name"}, "secret": KEYS}
WAYS = [
    chart.plain,
    pytest.param(chart.by_helm, marks=pytest.mark.skipif(shutil.which("helm") is None, reason="there is no helm here")),
]


@pytest.fixture(params=WAYS)
def manifests(request, tmp_path):
    def made(**more):
        (tmp_path / "values.yaml").write_text(yaml.safe_dump({**GIVEN, **more}))
        found = request.param(tmp_path / "values.yaml")
        by_kind = {document["kind"]: document for document in found}
        assert len(by_kind) == len(found)
        return by_kind

    return made


def test_the_manifests_fit_each_other_the_image_and_the_gateway(manifests, tmp_path):
    found = manifests()
    assert set(found) == {"ConfigMap", "Secret", "Deployment", "Service", "PodDisruptionBudget"}
    deployment = found["Deployment"]["spec"]
    pod, labels = deployment["template"]["spec"], deployment["template"]["metadata"]["labels"]
    (container,) = pod["containers"]
    for selector in (
        deployment["selector"]["matchLabels"], found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):  # fmt: skip
        assert selector.items() <= labels.items()
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] < deployment["replicas"]
    assert container["envFrom"] == [{"secretRef": {"name": found["Secret"]["metadata"]["name"]}}]
    assert found["Secret"]["stringData"] == KEYS
    # the file that is mounted is the one that is served, and the gateway reads it with the keys of the secret
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["files"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    assert container["args"] == ["serve", "--config", f"{mounts['files']['mountPath']}/gateway.toml", "--watch"]
    assert "subPath" not in mounts["files"]
    for name, text in found["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    config = load(tmp_path / "gateway.toml", KEYS)
    (port,) = container["ports"]
    assert (config.server.host, config.server.port) == ("0.0.0.0", port["containerPort"])
    assert config.server.admin_key == KEYS["BUDGETEER_ADMIN_KEY"]
    assert {container[f"{name}Probe"].get("httpGet", {}).get("path") for name in ("liveness", "startup")} == {None}
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert pod["terminationGracePeriodSeconds"] > config.server.drain_seconds + 5
    user = re.search(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.M)[1]
    assert pod["securityContext"]["runAsUser"] == int(user)
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert container["image"] == f"ghcr.io/owner/name:{version}"


def test_values_take_their_places(manifests):
    more = {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    image = {"repository": "mine", "tag": "7"}
    found = manifests(existingSecret="keys", image=image, imagePullSecrets=[{"name": "pull"}], **more)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert "Secret" not in found
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert pod["containers"][0]["image"] == "mine:7"
    assert {name: pod[name] for name in more} == more
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    changed = manifests(secret={**KEYS, "OPENAI_API_KEY": "sk-other"})["Deployment"]
    assert changed["spec"]["template"]["metadata"] != found["Deployment"]["spec"]["template"]["metadata"]


def test_replicas_get_the_secret_that_signs_sessions(manifests, tmp_path):
    """Admins without an admin key: the gateway does not start without it, and every pod has the same one."""
    default = yaml.safe_load((chart.CHART / "values.yaml").read_text())["files"]["gateway.toml"]
    admin = f'[[admins]]\nname = "Ada"\nrole = "admin"\nkey_sha256 = "{"0" * 64}"\n'
    secret = {"BUDGETEER_SESSION_SECRET": "s" * 32, "OPENAI_API_KEY": "sk-upstream"}
    found = manifests(secret=secret, files={"gateway.toml": default + admin})
    told = found["Secret"]["stringData"]
    assert told == secret
    (tmp_path / "gateway.toml").write_text(found["ConfigMap"]["data"]["gateway.toml"])
    config = load(tmp_path / "gateway.toml", told)
    assert (config.server.admin_key, config.admins.secret) == ("", secret["BUDGETEER_SESSION_SECRET"])
    with pytest.raises(InvalidInput, match="set BUDGETEER_SESSION_SECRET"):
        load(tmp_path / "gateway.toml", {"OPENAI_API_KEY": "sk-upstream"})
    other = manifests(secret={**secret, "BUDGETEER_SESSION_SECRET": "t" * 32}, files={"gateway.toml": default + admin})
    changed, before = (one["Deployment"]["spec"]["template"]["metadata"]["annotations"] for one in (other, found))
    assert changed != before  # the pods are made anew, since a running process keeps its environment


def test_the_values_name_each_secret_that_the_gateway_reads_by_itself():
    """Variables whose names stand in the code are in the comment of `secret`; others are named in gateway.toml."""
    known = set()
    for path in (ROOT / "src" / "budgeteer" / "gateway").rglob("*.py"):
        known |= set(re.findall(r'"(BUDGETEER_\w+)"', path.read_text()))
    assert known >= {"BUDGETEER_ADMIN_KEY", "BUDGETEER_SESSION_SECRET"}
    assert known <= set(re.findall(r"^#  (\w+):", (chart.CHART / "values.yaml").read_text(), re.M))


def test_the_image_has_to_be_named(manifests):
    with pytest.raises(Exception):  # noqa: B017 - an AssertionError, or helm's exit status
        manifests(image={"repository": ""})


def test_the_workflow_publishes_the_image_and_the_chart_that_are_here():
    text = (ROOT / ".github/workflows/image.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key "on" as true
    steps = workflow["jobs"]["publish"]["steps"]
    pushes = [step["with"] for step in steps if step.get("with", {}).get("push")]
    assert [push["platforms"] for push in pushes] == ["linux/amd64,linux/arm64"]
    for folder in re.findall(r"deploy/[\w/.]*\w", text):
        assert (ROOT / folder).exists(), folder
    # the three versions that the first step compares with the tag
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == version
