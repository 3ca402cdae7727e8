"""The chart renders with each set of values: valid, as the snapshots have it."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

import rig

KUBERNETES = "1.34"
# Kinds that Kubernetes does not know: `make cluster` asks their own definitions.
FOREIGN = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}


def is_of_file(item):
    """Says whether an object is the alerts or the dashboard: files of their own,
    and in a snapshot each change of them would be two."""
    kind, name = item["kind"], item["metadata"]["name"]
    return kind == "PrometheusRule" or kind == "ConfigMap" and name.endswith("-dashboard")


class Render(unittest.TestCase):
    def test_enough_sets_are_tried(self):
        self.assertGreaterEqual(len(rig.sets()), 12)

    def test_helm_lints_each_set(self):
        for name, path in rig.sets().items():
            with self.subTest(name):
                done = rig.helm("lint", "--strict", rig.CHART, *rig.values_of(path))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotRegex(done.stdout, r"\[(WARNING|ERROR)\]")

    def test_each_object_is_valid(self):
        checked = 0
        for name, path in rig.sets().items():
            for item in rig.objects(rig.render(path)):
                if item["kind"] in FOREIGN:
                    continue
                with self.subTest(f"{name}: {item['kind']} {item['metadata']['name']}"):
                    kubernetes_validate.validate(item, KUBERNETES, strict=True)
                    checked += 1
        self.assertGreater(checked, 80)

    def test_each_set_renders_as_its_snapshot(self):
        for name, path in rig.sets().items():
            items = [item for item in rig.objects(rig.render(path)) if not is_of_file(item)]
            text = yaml.safe_dump_all(items, sort_keys=True, width=10_000, allow_unicode=True)
            snapshot = rig.HERE / "snapshots" / f"{name}.yaml"
            if os.environ.get("UPDATE"):
                snapshot.write_text(text)
            with self.subTest(name):
                self.assertTrue(snapshot.exists(), "no snapshot: run make chart UPDATE=1")
                self.assertMultiLineEqual(
                    snapshot.read_text(), text, "if it is meant, run make chart UPDATE=1"
                )

    def test_no_snapshot_is_left_over(self):
        found = {path.stem for path in (rig.HERE / "snapshots").glob("*.yaml")}
        self.assertEqual(found, set(rig.sets()))

    def test_alerts_and_dashboard_are_the_files(self):
        items = rig.objects(rig.render(rig.VALUES / "all-on.yaml"))
        found = {item["kind"]: item for item in items if is_of_file(item)}
        alerts, dashboard = (
            rig.CHART / "files" / name for name in ("alerts.yaml", "dashboard.json")
        )
        if alerts.exists():
            spec = found["PrometheusRule"]["spec"]
            self.assertEqual(spec, yaml.safe_load(alerts.read_text()))
        else:
            self.assertNotIn("PrometheusRule", found)
        if dashboard.exists():
            text = found["ConfigMap"]["data"]["brucke.json"]
            self.assertEqual(text.strip(), dashboard.read_text().strip())
        else:
            self.assertNotIn("ConfigMap", found)


class Promises(unittest.TestCase):
    """What must hold whatever the values are."""

    def test_the_grace_period_is_longer_than_the_drain(self):
        cases = [
            ("15s", "60s", "15s", 90),
            ("0s", "1500ms", "10s", 12),
            ("1m", "5m", "30s", 390),
            ("5m", "10m", "10s", 910),
        ]
        for delay, window, margin, seconds in cases:
            with self.subTest(f"{delay} {window} {margin}"):
                text = rig.render(
                    rig.MINIMAL, "--set", f"drain.delay={delay},drain.window={window},drain.margin={margin}"
                )
                items = rig.objects(text)
                pod = rig.of_kind(items, "Deployment")["spec"]["template"]["spec"]
                self.assertEqual(pod["terminationGracePeriodSeconds"], seconds)
                # A pod keeps its variables, and reads its file anew.
                for container in pod["containers"] + pod["initContainers"]:
                    self.assertEqual(drain_of(container), (delay, window))
                toml = rig.of_kind(items, "ConfigMap")["data"]["brucke.toml"]
                self.assertNotIn("drain", toml)

    def test_a_change_of_configuration_changes_the_pods_and_nothing_else_does(self):
        def checksum(*arguments):
            items = rig.objects(rig.render(rig.MINIMAL, *arguments))
            pod = rig.of_kind(items, "Deployment")["spec"]["template"]
            return pod["metadata"]["annotations"]["checksum/config"]

        self.assertEqual(checksum(), checksum("--set", "replicas=5"))
        self.assertNotEqual(checksum(), checksum("--set", "config.server.workers=3"))
        self.assertEqual(checksum(), checksum("--set", "drain.window=61s"))

    def test_pods_that_reload_stay_when_the_configuration_changes(self):
        def pod(*arguments):
            items = rig.objects(rig.render(rig.MINIMAL, "--set", "reloadConfig=true", *arguments))
            return rig.of_kind(items, "Deployment")["spec"]["template"]

        self.assertNotIn("annotations", pod()["metadata"])
        self.assertEqual(pod(), pod("--set", "config.log.level=debug"))
        self.assertNotEqual(pod(), pod("--set", "drain.window=61s"))
        self.assertEqual(pod("--set", "podAnnotations.a=b")["metadata"]["annotations"], {"a": "b"})

    def test_every_pod_is_restricted(self):
        for name, path in rig.sets().items():
            for item in rig.objects(rig.render(path)):
                spec = {
                    "Deployment": lambda item: item["spec"]["template"]["spec"],
                    "Pod": lambda item: item["spec"],
                }.get(item["kind"], lambda _: None)(item)
                if spec is None:
                    continue
                with self.subTest(f"{name}: {item['kind']}"):
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                    self.assertEqual(
                        spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}
                    )
                    ours = [c for c in spec["containers"] if c["name"] in ("brucke", "tail")]
                    self.assertEqual(len(ours), 1)
                    self.assertIs(ours[0]["securityContext"]["readOnlyRootFilesystem"], True)

    def test_no_secret_is_written(self):
        for name, path in rig.sets().items():
            with self.subTest(name):
                kinds = {item["kind"] for item in rig.objects(rig.render(path))}
                self.assertNotIn("Secret", kinds)


class Configuration(unittest.TestCase):
    """The binary accepts what the chart writes."""

    def test_check_config_accepts_each_set(self):
        binary = os.environ["BRUCKE_BINARY"]
        for name, path in rig.sets().items():
            items = rig.objects(rig.render(path))
            toml = rig.of_kind(
                [i for i in items if "brucke.toml" in i.get("data", {})], "ConfigMap"
            )["data"]["brucke.toml"]
            pod = rig.of_kind(items, "Deployment")["spec"]["template"]["spec"]
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                mount(Path(folder), pod)
                config = Path(folder) / "config" / "brucke.toml"
                config.parent.mkdir()
                config.write_text(toml.replace("/etc/brucke", folder))
                container = rig_container(pod)
                variables = {
                    entry["name"]: entry.get("value", "x" * 32)
                    for entry in container.get("env", [])
                }
                done = subprocess.run(
                    [binary, "check-config", "--config", config],
                    capture_output=True, text=True, check=False, env=variables,
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, r"^valid: ")


def rig_container(pod):
    """Returns Brücke's own container."""
    return next(c for c in pod["containers"] if c["name"] == "brucke")


def drain_of(container):
    """Returns the delay and the window of a container's drain, as it is told them."""
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    return tuple(values[f"BRUCKE_SERVER_DRAIN_{name}"] for name in ("DELAY", "WINDOW"))


def mount(folder, pod):
    """Lays the files of a pod's Secrets below a folder."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for entry in rig_container(pod)["volumeMounts"]:
        path = Path(entry["mountPath"])
        volume = volumes[entry["name"]]
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            for item in source.get("secret", {}).get("items", []):
                file = folder / path.relative_to("/etc/brucke") / item["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(rig.public_key())
        if volume.get("secret", {}).get("items") and entry["name"] == "tls":
            rig.make_pair(folder / "tls")


if __name__ == "__main__":
    unittest.main()
