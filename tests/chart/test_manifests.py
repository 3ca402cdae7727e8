"""The manifests without Helm are what the chart renders."""

import os
import re
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

import kubernetes_validate

import rig
from test_render import FOREIGN, KUBERNETES, drain_of, mount, rig_container

# What only Helm writes.
HELM_LABELS = {
    "helm.sh/chart",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "app.kubernetes.io/instance",
}


def plain(value, key=None):
    """Returns a part of an object without what only one of the two sides has."""
    if isinstance(value, dict):
        fields = {name: plain(item, name) for name, item in value.items()}
        for name in HELM_LABELS | {"checksum/config", "namespace" if key == "metadata" else ""}:
            fields.pop(name, None)
        return {name: item for name, item in fields.items() if name != "annotations" or item}
    if isinstance(value, list):
        items = [plain(item) for item in value]
        named = all(isinstance(item, dict) and "name" in item for item in items)
        return sorted(items, key=lambda item: item["name"]) if named else items
    if isinstance(value, str):
        # The hash that kustomize puts behind a ConfigMap's name.
        return re.sub(r"^(brucke(?:-dashboard)?)-[0-9a-z]{10}$", r"\1", value)
    return value


def by_name(items):
    """Returns what is compared of objects, by kind and name."""
    found = {}
    for item in map(plain, items):
        if item["kind"] == "Namespace":
            continue
        if "brucke.toml" in item.get("data", {}):
            item = {
                "kind": "ConfigMap",
                "metadata": {"name": "brucke"},
                "toml": tomllib.loads(item["data"]["brucke.toml"]),
            }
        found[item["kind"], item["metadata"]["name"]] = item
    return found


class Manifests(unittest.TestCase):
    maxDiff = None

    def assert_same(self, manifests, rendered):
        for key in sorted(set(manifests) | set(rendered)):
            with self.subTest(" ".join(key)):
                self.assertEqual(manifests.get(key), rendered.get(key))

    def test_the_base_is_the_chart_with_the_least_values(self):
        chart = by_name(
            rig.objects(
                rig.render(
                    rig.MINIMAL, "--set", "fullnameOverride=brucke,networkPolicy.enabled=false"
                )
            )
        )
        base = by_name(rig.kustomize("base"))
        # It is replaced by every overlay.
        for side in (chart, base):
            del side["ConfigMap", "brucke"]
        self.assertEqual(len(base), 5)
        self.assert_same(base, chart)

    def test_the_overlay_for_production_is_the_chart_with_the_same_values(self):
        chart = by_name(rig.objects(rig.render(rig.VALUES / "like-prod.yaml")))
        self.assert_same(by_name(rig.kustomize("overlays/prod")), chart)

    def test_each_overlay_is_valid_and_its_grace_period_longer_than_its_drain(self):
        for overlay in ("dev", "prod"):
            items = rig.kustomize(f"overlays/{overlay}")
            for item in items:
                with self.subTest(f"{overlay}: {item['kind']}"):
                    if item["kind"] not in FOREIGN:
                        kubernetes_validate.validate(item, KUBERNETES, strict=True)
            with self.subTest(overlay):
                pod = rig.of_kind(items, "Deployment")["spec"]["template"]["spec"]
                self.assertNotIn("drain", config_of(items))
                for container in pod["containers"] + pod["initContainers"]:
                    delay, window = (int(time.removesuffix("s")) for time in drain_of(container))
                    self.assertEqual(pod["terminationGracePeriodSeconds"], delay + window + 15)

    def test_check_config_accepts_each_overlay(self):
        for overlay in ("dev", "prod"):
            items = rig.kustomize(f"overlays/{overlay}")
            pod = rig.of_kind(items, "Deployment")["spec"]["template"]["spec"]
            with self.subTest(overlay), tempfile.TemporaryDirectory() as folder:
                mount(Path(folder), pod)
                config = Path(folder) / "brucke.toml"
                config.write_text(config_of(items).replace("/etc/brucke", folder))
                variables = {
                    entry["name"]: entry.get("value", "x") for entry in rig_container(pod)["env"]
                }
                done = subprocess.run(
                    [os.environ["BRUCKE_BINARY"], "check-config", "--config", config],
                    capture_output=True, text=True, check=False,
                    env=variables,
                )
                self.assertEqual(done.returncode, 0, done.stderr)


def config_of(items):
    """Returns the configuration file among objects."""
    (text,) = [
        item["data"]["brucke.toml"] for item in items if "brucke.toml" in item.get("data", {})
    ]
    return text


if __name__ == "__main__":
    unittest.main()
