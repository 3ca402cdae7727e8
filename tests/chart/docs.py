"""Keeps what is made from other files true.

    docs.py write   makes it
    docs.py check   says what differs; exit code 1 if anything does

- The table of values in helm/brucke/README.md is made from the comments of
  values.yaml.
- k8s/components/monitoring has the chart's alerts and dashboard, for kustomize
  reads no file that is outside its folder.
- `$defs.config` in values.schema.json is made from docs/configuration.md, which
  the binary prints and a test of its own keeps true.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "brucke"
BEGIN = "<!-- values: made by `make chart-docs` -->\n"
END = "<!-- end of values -->\n"

# Keys that the chart sets itself: what they say would contradict it.
OWN = {"server.listen", "server.drain_delay", "server.drain_window", "admin.listen"}
# Secrets, which stand in Secrets and not in values.
SECRET = {"kafka.password", "kafka.key_password", "auth.issuers.secret"}
# Sections that stand in a file as often as is needed.
LISTS = {"auth.issuers", "channels", "tenants.exceptions"}
# What a text may be, where it may not be anything; the page says it in words.
CHOICES = {
    "server.proxy_protocol": ["off", "v2"],
    "server.forwarded_header": ["none", "forwarded", "x-forwarded-for"],
    "tracing.exporter": ["otlp", "none"],
    "tracing.protocol": ["grpc", "http/protobuf"],
    "kafka.security": ["plaintext", "tls", "sasl_plaintext", "sasl_tls"],
    "kafka.sasl_mechanism": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
    "auth.mode": ["tokens", "none"],
    "auth.issuers.algorithm": ["HS256", "RS256", "ES256", "EdDSA"],
    "log.format": ["text", "json"],
    "log.level": ["error", "warn", "info", "debug", "trace"],
    "tracing.exporter": ["otlp", "none"],
    "tracing.protocol": ["grpc", "http/protobuf"],
}
TENANT = {
    "oneOf": [
        {"const": "shared"},
        *(
            {
                "type": "object",
                "additionalProperties": False,
                "required": [way],
                "properties": {way: {"type": "string", "minLength": 1}},
            }
            for way in ("header", "key_prefix", "value")
        ),
    ]
}


def rows(text):
    """Yields (key, default, meaning) for each commented key of values.yaml."""
    defaults = yaml.safe_load(text)
    comment, path = [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        found = re.match(r"^( *)([A-Za-z]+):", line)
        if not found:
            comment = []
            continue
        depth = len(found[1]) // 2
        path = path[:depth] + [found[2]]
        if comment:
            value = defaults
            for name in path:
                value = value[name]
            yield ".".join(path), value, " ".join(comment)
        comment = []


def table():
    """Returns the table of values as Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    all_rows = list(rows((CHART / "values.yaml").read_text()))
    for key, value, meaning in all_rows:
        has_rows = any(other.startswith(key + ".") for other, _, _ in all_rows)
        default = "" if has_rows else f"`{json.dumps(value, ensure_ascii=False)}`"
        meaning = meaning.replace("|", "\\|")
        lines.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def readme(text):
    """Returns the README with the table as it must be."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + table() + "\n" + END + after


def value_schema(key, sample, bounds):
    """Returns what a key's value may be, by a sample of it and its bounds."""
    if key == "channels.tenant":
        return dict(TENANT)
    if key in CHOICES:
        return {"enum": CHOICES[key]}
    if sample in ("true", "false"):
        return {"type": "boolean"}
    if sample.startswith("["):
        return {"type": "array", "items": {"type": "string"}}
    if sample.startswith("{"):
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if re.fullmatch(r"[0-9]+", sample):
        low, high = (int(bound) for bound in bounds)
        return {"type": "integer", "minimum": low, "maximum": high}
    if bounds:
        unit = re.fullmatch(r"[0-9]+([A-Za-z]+)", bounds[1])[1]
        units = "B|KiB|MiB|GiB" if unit.endswith("B") else "ms|s|m|h|d"
        return {"type": "string", "pattern": f"^[0-9]+({units})$"}
    return {"type": "string", "minLength": 1}


def or_null(value):
    """Returns the schema of a value that may also be taken away by null."""
    if "enum" in value:
        return {"enum": [*value["enum"], None]}
    if "oneOf" in value:
        return {"oneOf": [*value["oneOf"], {"type": "null"}]}
    return {**value, "type": [value["type"], "null"]}


def config_schema(page):
    """Returns the schema of `config` from the page that lists every key."""
    sections, name = {}, None
    for block in page.split("<!-- keys -->")[1].split("\n## ")[1:]:
        name = re.match(r"`\[+([a-z.]+)\]+`", block)[1]
        schema = {"type": "object", "additionalProperties": False, "properties": {}}
        required = []
        for entry in block.split("\n### ")[1:]:
            key = re.match(r"`([a-z_.]+)`", entry)[1]
            if key in OWN | SECRET:
                continue
            about, _, last = entry.strip().partition("\n\n")[2].rpartition("\n\n")
            sample = re.search(r"(?:Default|for example) `(.*?)`(?:;|\.$)", last)[1]
            bounds = re.search(r"from `(\w+)` to `(\w+)`", last)
            field = key.rsplit(".", 1)[1]
            value = value_schema(key, sample, bounds.groups() if bounds else None)
            if last.startswith("Must be set") and name in LISTS:
                required.append(field)
            else:
                value = or_null(value)
            schema["properties"][field] = {"description": " ".join(about.split()), **value}
        if required:
            schema["required"] = required
        sections[name] = schema
    exception = sections.pop("tenants.exceptions")
    sections["tenants"]["properties"]["exceptions"] = {"type": "array", "items": exception}
    issuer = sections.pop("auth.issuers")
    # A JWK of HS256 is a secret.
    issuer["if"] = {"properties": {"algorithm": {"const": "HS256"}}, "required": ["algorithm"]}
    issuer["then"] = {"properties": {"jwk": {"not": {}}}}
    sections["auth"]["properties"]["issuers"] = {"type": "array", "items": issuer}
    sections["channels"] = {"type": "array", "items": sections["channels"]}
    return {"type": "object", "additionalProperties": False, "properties": sections}


def sections():
    """Returns the names of the sections that `config` takes."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    return list(config_schema(page)["properties"])


def schema(text):
    """Returns values.schema.json as it must be."""
    whole = json.loads(text)
    whole["$defs"]["config"] = config_schema((ROOT / "docs" / "configuration.md").read_text())
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


RULE = """\
# Made from helm/brucke/files/alerts.yaml by `make chart-docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: brucke
  labels:
    app.kubernetes.io/component: server
    app.kubernetes.io/name: brucke
spec:
"""
MONITORING = """\
# Made by `make chart-docs`.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
  - servicemonitor.yaml
"""
DASHBOARD = """\
configMapGenerator:
  - name: brucke-dashboard
    files:
      - brucke.json=dashboard.json
    options:
      # Grafana's sidecar looks for the label, and nothing for the name.
      disableNameSuffixHash: true
      labels:
        app.kubernetes.io/component: server
        app.kubernetes.io/name: brucke
        grafana_dashboard: "1"
"""


def monitoring():
    """Returns the files of the component for monitoring, as they must be."""
    folder = ROOT / "k8s" / "components" / "monitoring"
    alerts, dashboard = (CHART / "files" / name for name in ("alerts.yaml", "dashboard.json"))
    listed, files = MONITORING, {}
    if alerts.exists():
        listed += "  - prometheusrule.yaml\n"
        lines = alerts.read_text().splitlines()
        indented = "".join(f"  {line}".rstrip() + "\n" for line in lines)
        files[folder / "prometheusrule.yaml"] = RULE + indented
    if dashboard.exists():
        listed += DASHBOARD
        files[folder / "dashboard.json"] = dashboard.read_text()
    return {folder / "kustomization.yaml": listed, **files}


def main():
    stale = []
    made = {
        CHART / "README.md": readme((CHART / "README.md").read_text()),
        CHART / "values.schema.json": schema((CHART / "values.schema.json").read_text()),
        **monitoring(),
    }
    for path, new in made.items():
        old = path.read_text() if path.exists() else None
        if new == old:
            continue
        if sys.argv[1:] == ["write"]:
            path.write_text(new)
        else:
            stale.append(path.relative_to(ROOT))
    for path in stale:
        print(f"{path} is not what it is made from says; run: make chart-docs", file=sys.stderr)
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
