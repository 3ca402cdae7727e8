"""What the chart's tests have in common: renders the chart and reads manifests."""

import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "brucke"
HERE = Path(__file__).resolve().parent
VALUES = HERE / "values"
MINIMAL = VALUES / "minimal.yaml"
HELM = os.environ["HELM"]
KUBECTL = os.environ["KUBECTL"]


def sets():
    """Returns the sets of values by name; each is laid over the minimal one."""
    return {path.stem: path for path in sorted(VALUES.glob("*.yaml"))}


def helm(*arguments, stdin=None):
    """Runs Helm; returns what it ended with, printed and complained of."""
    return subprocess.run(
        [HELM, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False
    )


def values_of(path):
    """Returns the arguments that give Helm a set of values."""
    return ["--values", MINIMAL] if path == MINIMAL else ["--values", MINIMAL, "--values", path]


def render(path, *arguments):
    """Renders the chart with a set of values; returns the text."""
    done = helm(
        "template", "live", CHART, "--namespace", "brucke", *values_of(path), *arguments
    )
    assert done.returncode == 0, f"{path.stem}: {done.stderr}"
    assert not done.stderr, f"{path.stem}: Helm complains: {done.stderr}"
    return done.stdout


def objects(text):
    """Returns the objects of a stream of YAML."""
    return [item for item in yaml.safe_load_all(text) if item]


def of_kind(items, kind, suffix=""):
    """Returns the one object of a kind, whose name ends so."""
    found = [
        item
        for item in items
        if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)
    ]
    assert len(found) == 1, f"{len(found)} objects are {kind}s"
    return found[0]


def kustomize(folder):
    """Builds a folder of manifests; returns its objects."""
    done = subprocess.run(
        [KUBECTL, "kustomize", ROOT / "k8s" / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    assert not done.stderr, f"{folder}: kustomize complains: {done.stderr}"
    return objects(done.stdout)


def make_pair(folder):
    """Writes a certificate and its key, as a Secret for TLS has them."""
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=live.example"
    files = ["-out", folder / "tls.crt", "-keyout", folder / "tls.key"]
    subprocess.run(["openssl", "req", *options.split(), *files], check=True, capture_output=True)


def public_key():
    """Returns a key in PEM, to stand in files that need one."""
    issuers = yaml.safe_load(MINIMAL.read_text())["config"]["auth"]["issuers"]
    return issuers[0]["pem"]
