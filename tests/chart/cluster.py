"""The chart and the manifests on a real API server: installed, upgraded, rolled
back, taken away, without a warning and with nothing left.

No pod runs there. What a pod would be, is asked of the admission that would let
it in: the namespaces enforce restricted pod security.
"""

import json
import os
import subprocess
import unittest
from pathlib import Path

import yaml

import rig
from control_plane import ControlPlane

# What a namespace has that nobody here made.
OF_THE_CLUSTER = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
"""


class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.plane = cls.enterClassContext(ControlPlane())
        cls.environment = {**os.environ, "KUBECONFIG": str(cls.plane.kubeconfig)}
        crds = Path(os.environ["CRDS"])
        cls.kubectl("apply", "--server-side", "--filename", crds)
        names = [yaml.safe_load(path.read_text())["metadata"]["name"] for path in crds.iterdir()]
        cls.kubectl(
            "wait", "--for=condition=Established", "--timeout=60s",
            *(f"crd/{name}" for name in names),
        )

    @classmethod
    def run_tool(cls, *command, stdin=None):
        """Runs a command that must end well and without a warning."""
        done = subprocess.run(
            [*map(str, command)], input=stdin, capture_output=True, text=True,
            check=False, env=cls.environment,
        )
        what = " ".join(map(str, command))
        assert done.returncode == 0, f"{what}\n{done.stderr}"
        assert "warn" not in done.stderr.lower(), f"{what}\n{done.stderr}"
        return done.stdout

    @classmethod
    def kubectl(cls, *arguments, stdin=None):
        return cls.run_tool(rig.KUBECTL, *arguments, stdin=stdin)

    def helm(self, *arguments):
        return self.run_tool(rig.HELM, *arguments, "--namespace", self.namespace)

    def make_namespace(self, name):
        self.namespace = name
        self.kubectl("apply", "--server-side", "-f", "-", stdin=NAMESPACE.format(name=name))
        # A controller makes it elsewhere, and none runs here.
        self.kubectl("create", "serviceaccount", "default", "--namespace", name)

    def left(self):
        """Returns what the namespace holds, of every kind that there is."""
        kinds = self.kubectl(
            "api-resources", "--namespaced", "--verbs=list", "--output=name"
        ).split()
        # The server itself advises against endpoints, which slices have replaced.
        kinds = [kind for kind in kinds if kind.split(".")[0] not in ("events", "endpoints")]
        found = json.loads(
            self.kubectl("get", ",".join(kinds), "--namespace", self.namespace, "--output=json")
        )
        names = {(item["kind"], item["metadata"]["name"]) for item in found["items"]}
        return names - OF_THE_CLUSTER

    def revision(self, *path):
        """Returns a field of the Deployment."""
        value = json.loads(
            self.kubectl(
                "get", "deployment", "--namespace", self.namespace, "--output=json"
            )
        )["items"]
        self.assertEqual(len(value), 1)
        value = value[0]
        for name in path:
            value = value[name]
        return value

    def apply(self, items, *arguments):
        """Applies objects as the server's own."""
        whole = yaml.safe_dump_all(items)
        self.kubectl("apply", "--server-side", *arguments, "-f", "-", stdin=whole)

    def admit(self, items):
        """Asks admission whether it would let the pods of these objects in."""
        for item in items:
            if item["kind"] == "Deployment":
                pod = json.loads(json.dumps(item["spec"]["template"]))
                # The cluster has no such class.
                pod["spec"].pop("priorityClassName", None)
            elif item["kind"] == "Pod":
                pod = item
            else:
                continue
            pod = {"apiVersion": "v1", "kind": "Pod", **pod}
            pod["metadata"] = {"name": "asked", "namespace": self.namespace}
            self.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    def test_helm_installs_upgrades_rolls_back_and_leaves_nothing(self):
        self.make_namespace("by-helm")
        before = self.left()
        all_on, minimal = rig.VALUES / "all-on.yaml", rig.MINIMAL
        spec = ("spec", "template", "spec")

        self.helm("install", "live", rig.CHART, *rig.values_of(minimal))
        self.assertEqual(self.revision("spec", "replicas"), 3)
        installed = self.left()

        told = self.helm("upgrade", "live", rig.CHART, *rig.values_of(all_on))
        self.assertIn("brucke tail orders", told)
        self.assertEqual(self.revision(*spec, "containers")[0]["image"][:24], "registry.example/brucke@")
        kinds = {kind for kind, _ in self.left()}
        self.assertLessEqual({"HTTPRoute", "ServiceMonitor", "HorizontalPodAutoscaler"}, kinds)

        self.helm("rollback", "live", "1")
        self.assertEqual(self.revision(*spec, "containers")[0]["image"], "brucke:0.1.0")
        kept = {item for item in self.left() if item[0] != "Secret"}
        self.assertEqual(kept, {item for item in installed if item[0] != "Secret"})

        self.helm("uninstall", "live")
        self.assertEqual(self.left(), before)

    def test_pods_stay_through_a_change_of_configuration_where_they_are_to_reload_it(self):
        self.make_namespace("reloads")
        level = "config.log.level=debug"
        for reload, stay in [("true", True), ("false", False)]:
            with self.subTest(reload=reload):
                asked = [*rig.values_of(rig.MINIMAL), "--set", f"reloadConfig={reload}"]
                self.helm("upgrade", "--install", "live", rig.CHART, *asked)
                before = self.revision("spec", "template"), self.settings()
                self.helm("upgrade", "live", rig.CHART, *asked, "--set", level)
                after = self.revision("spec", "template"), self.settings()
                self.assertNotEqual(before[1], after[1], "the file has changed")
                self.assertIn("debug", after[1])
                self.assertEqual(before[0] == after[0], stay)
        self.helm("uninstall", "live")

    def test_switching_autoscaling_on_keeps_the_replicas(self):
        autoscaled = rig.values_of(rig.VALUES / "autoscaling.yaml")
        for way in ("true", "false"):
            with self.subTest(f"server-side apply: {way}"):
                self.make_namespace(f"scales-{way}")
                self.helm(
                    "install", "live", rig.CHART, f"--server-side={way}",
                    *rig.values_of(rig.MINIMAL), "--set", "replicas=4",
                )
                for _ in range(2):
                    self.helm("upgrade", "live", rig.CHART, *autoscaled)
                    self.assertEqual(self.revision("spec", "replicas"), 4)
                self.assertIn("HorizontalPodAutoscaler", {kind for kind, _ in self.left()})
                # As an autoscaler does it.
                self.scale(7)
                for level in ("debug", "info"):
                    level = f"config.log.level={level}"
                    self.helm("upgrade", "live", rig.CHART, *autoscaled, "--set", level)
                    self.assertEqual(self.revision("spec", "replicas"), 7)

    def test_a_rollback_leaves_the_replicas_to_the_autoscaler(self):
        self.make_namespace("rolls-back")
        autoscaled = rig.values_of(rig.VALUES / "autoscaling.yaml")
        self.helm("install", "live", rig.CHART, *rig.values_of(rig.MINIMAL))
        self.helm("upgrade", "live", rig.CHART, *autoscaled)
        self.scale(7)
        for level in ("debug", "info"):
            self.helm("upgrade", "live", rig.CHART, *autoscaled, "--set", f"config.log.level={level}")
        self.scale(9)
        self.helm("rollback", "live", "3")
        self.assertIn("debug", self.settings())
        self.assertEqual(self.revision("spec", "replicas"), 9)
        # Before the autoscaler had a say, Helm had one.
        self.assertIn("conflict", self.refused(rig.HELM, "rollback", "live", "1"))
        self.helm("rollback", "live", "1", "--force-conflicts")
        self.assertEqual(self.revision("spec", "replicas"), 3)

    def test_without_helm_the_replicas_are_kept_where_the_field_is_handed_over(self):
        autoscaled = rig.VALUES / "autoscaling.yaml"
        for handed_over, replicas in [(False, 1), (True, 3)]:
            with self.subTest(handed_over=handed_over):
                self.make_namespace(f"handed-over-{handed_over}".lower())
                self.apply(self.rendered(rig.MINIMAL))
                self.assertEqual(self.revision("spec", "replicas"), 3)
                if handed_over:
                    name = self.revision("metadata", "name")
                    part = {
                        "apiVersion": "apps/v1",
                        "kind": "Deployment",
                        "metadata": {"name": name, "namespace": self.namespace},
                        "spec": {"replicas": 3},
                    }
                    self.apply([part], "--field-manager=handover")
                self.apply(self.rendered(autoscaled))
                self.assertEqual(self.revision("spec", "replicas"), replicas)

    def rendered(self, path):
        """Returns the chart's objects as those who render it without a cluster have them."""
        return [in_namespace(item, self.namespace) for item in rig.objects(rig.render(path))]

    def scale(self, replicas):
        """Sets how many replicas there are, by the subresource `scale`."""
        name = self.revision("metadata", "name")
        self.kubectl(
            "scale", "deployment", name, "--namespace", self.namespace, f"--replicas={replicas}"
        )

    def refused(self, *command):
        """Returns what a command complains of that must fail."""
        done = subprocess.run(
            [*map(str, command), "--namespace", self.namespace], capture_output=True, text=True,
            check=False, env=self.environment,
        )
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stderr

    def settings(self):
        """Returns the file that pods read."""
        maps = json.loads(
            self.kubectl("get", "configmap", "--namespace", self.namespace, "--output=json")
        )
        files = [item["data"] for item in maps["items"] if "brucke.toml" in item.get("data", {})]
        self.assertEqual(len(files), 1)
        return files[0]["brucke.toml"]

    def test_every_set_of_values_is_taken_by_the_server(self):
        self.make_namespace("sets")
        for name, path in rig.sets().items():
            with self.subTest(name):
                items = [in_namespace(item, "sets") for item in rig.objects(rig.render(path))]
                # Admission asks for the account of a pod: it must be there.
                accounts = [item for item in items if item["kind"] == "ServiceAccount"]
                self.apply(accounts)
                self.apply(items, "--dry-run=server")
                self.admit(items)

    def test_both_overlays_are_applied_and_leave_nothing(self):
        for overlay in ("dev", "prod"):
            folder = rig.ROOT / "k8s" / "overlays" / overlay
            items = rig.kustomize(f"overlays/{overlay}")
            self.namespace = rig.of_kind(items, "Namespace")["metadata"]["name"]
            with self.subTest(overlay):
                self.kubectl("apply", "--server-side", "-k", folder)
                # All but the namespace itself.
                self.assertEqual(len(self.left()), len(items) - 1)
                self.admit(items)
                self.kubectl("apply", "--server-side", "-k", folder)
                self.kubectl("delete", "-k", folder, "--wait=false")
                self.assertEqual(self.left(), set())

    def test_the_namespace_refuses_a_pod_that_is_not_restricted(self):
        self.make_namespace("strict")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "loose", "namespace": "strict"},
            "spec": {"containers": [{"name": "loose", "image": "loose"}]},
        }
        done = subprocess.run(
            [rig.KUBECTL, "create", "--dry-run=server", "-f", "-"], input=json.dumps(pod),
            capture_output=True, text=True, check=False, env=self.environment,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('violates PodSecurity "restricted:latest"', done.stderr)


def in_namespace(item, namespace):
    """Returns an object in another namespace."""
    if item["kind"] != "Namespace":
        item["metadata"]["namespace"] = namespace
    return item


if __name__ == "__main__":
    unittest.main()
