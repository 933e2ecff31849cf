"""The part of tests/deploy.sh that reads the files of deploy/ instead of handing them to a tool;
kubernetes.py has the manifests.

Each subcommand is one check: it says on standard error what is wrong, and its exit status says whether.
"""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
def rules():
    """Every alert says what to do, has a section, a case in which it fires, and words that only use labels it then has."""
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]
    alerts = [r for g in groups for r in g["rules"] if "alert" in r]
    cases = yaml.safe_load((DEPLOY / "prometheus/rules_test.yaml").read_text())["tests"]
    operations = (ROOT / "docs/operations.md").read_text()
    fired = {}
    for sample in (s for c in cases for t in c["promql_expr_test"] for s in t["exp_samples"]):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
        if labels.get("alertstate") == "firing":
            fired.setdefault(labels["alertname"], set()).update(labels)
    for alert in alerts:
        name, notes = alert["alert"], alert["annotations"]
        assert name in fired, f"{name} fires in no case of rules_test.yaml"
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), f"{name}: severity"
        assert "keep_firing_for" in alert, f"{name} ends and begins again where it wavers"
        assert notes["runbook_url"] == f"docs/operations.md#{name.lower()}", f"{name}: runbook_url"
        assert operations.count(f"\n### {name}\n") == 1, f"{name} has no section in docs/operations.md"
        used = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
        assert used <= fired[name], f"{name} speaks of {used - fired[name]}, which it does not have"
    assert {a["alert"] for a in alerts} == set(fired), "rules_test.yaml expects an alert that is not there"


def scrape(target):
    """Writes scrape.yaml with fixed targets: Debian's promtool is built without the discovery of Kubernetes."""
    text = (DEPLOY / "prometheus/scrape.yaml").read_text()
    config = yaml.safe_load(text)
    job = config["scrape_configs"][0]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}], "role: pod is what finds a container port by name"
    job["static_configs"] = [{"targets": ["127.0.0.1:9090"]}]
    config["rule_files"] = [str(DEPLOY / "prometheus" / r) for r in config["rule_files"]]
    pathlib.Path(target).write_text(yaml.safe_dump(config))


def metrics(*pages):
    """Every metric that the rules read is on one of these pages, of gates that have just started."""
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]
    read = " ".join(rule["expr"] for group in groups for rule in group["rules"])
    recorded = r"\w+:metrika_gate_\w+"
    names = set(re.findall(r"\bmetrika_gate_\w+", re.sub(recorded, "", read)))
    assert len(names) > 20, "the rules read almost nothing: this check is broken"
    text = "".join(pathlib.Path(page).read_text() for page in pages)
    missing = sorted(n for n in names if not re.search(rf"^{n}[{{ ]", text, re.MULTILINE))
    assert not missing, f"not exported: {', '.join(missing)}"


CHECKS = {f.__name__: f for f in (rules, scrape, metrics)}

if __name__ == "__main__":
    try:
        CHECKS[sys.argv[1]](*sys.argv[2:])
    except AssertionError as problem:
        sys.exit(str(problem))
