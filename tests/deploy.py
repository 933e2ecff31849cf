"""The part of tests/deploy.sh that reads the files of deploy/ instead of handing them to a tool.

Each subcommand is one check: it says on standard error what is wrong, and its exit status says whether.
"""

import pathlib
import re
import stat
import subprocess
import urllib.parse
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def seconds(text):
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    assert "".join(n + u for n, u in parts) == text, f"{text} is no duration"
    return sum(int(n) * SECONDS[u] for n, u in parts)


def manifests():
    """Every workload of deploy/kubernetes with its gate container and its gate.yaml."""
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        documents = list(yaml.safe_load_all(path.read_text()))
        maps = {d["metadata"]["name"]: d for d in documents if d["kind"] == "ConfigMap"}
        for document in documents:
            if document["kind"] != "Deployment":
                continue
            pod = document["spec"]["template"]["spec"]
            containers = pod.get("initContainers", []) + pod["containers"]
            gate = next((c for c in containers if c["name"] == "metrika-gate"), None)
            if gate is None:
                continue
            config = next(m["name"] for m in gate["volumeMounts"] if m["mountPath"] == "/etc/metrika-gate")
            name = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == config)
            yield path.name, documents, pod, gate, maps[name]["data"]["gate.yaml"]


def grace():
    """Kubernetes waits longer than the gate takes to drain."""
    for file, _, pod, _, text in manifests():
        shutdown = yaml.safe_load(text)["shutdown"]
        need = seconds(shutdown["delay"]) + seconds(shutdown["timeout"])
        have = pod["terminationGracePeriodSeconds"]
        assert have > need, f"{file}: terminationGracePeriodSeconds is {have}, the gate may take {need}"


def confined(file, pod, container, user):
    """The container runs as this user, with nothing that it does not need, and only its group reads the secrets."""
    context = container["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] == context["runAsGroup"] == user, f"{file}: user"
    assert context["readOnlyRootFilesystem"] is True, f"{file}: root file system"
    assert context["allowPrivilegeEscalation"] is False, f"{file}: privilege escalation"
    assert context["capabilities"] == {"drop": ["ALL"]}, f"{file}: capabilities"
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", f"{file}: seccomp"
    assert pod["automountServiceAccountToken"] is False, f"{file}: service account"
    assert pod["securityContext"]["fsGroup"] == user, f"{file}: fsGroup"
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount and mount["readOnly"], f"{file}: mount {mount['name']}"
    secrets = [v for v in pod["volumes"] if "secret" in v]
    assert {v["secret"]["defaultMode"] for v in secrets} == {0o440}, f"{file}: mode of the secrets"
    return secrets


def hardening():
    """The gate runs with nothing that it does not need, and its tokens and configuration can change under it."""
    for file, _, pod, gate, _ in manifests():
        secrets = confined(file, pod, gate, 65532)
        for other in pod["containers"]:
            mounted = {m["name"] for m in other.get("volumeMounts", [])}
            assert other is gate or not mounted & {v["name"] for v in secrets}, f"{file}: {other['name']} has the tokens"


def ports():
    """Container ports, probes, the Service and the NetworkPolicy speak of the ports that gate.yaml opens."""
    for file, documents, _, gate, text in manifests():
        config = yaml.safe_load(text)
        remote = {int(l["address"].rsplit(":", 1)[1]) for l in config["listeners"] if l.get("allow_remote")}
        admin = int(config["admin"]["address"].rsplit(":", 1)[1])
        names = {p["name"]: p["containerPort"] for p in gate["ports"]}
        assert set(names.values()) == remote | {admin}, f"{file}: containerPorts {names}"
        assert names["gate-admin"] == admin, f"{file}: gate-admin"
        for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert gate[probe]["httpGet"] == {"path": path, "port": "gate-admin"}, f"{file}: {probe}"
        services = [d for d in documents if d["kind"] == "Service"]
        assert all(names[p["targetPort"]] in remote for s in services for p in s["spec"]["ports"]), f"{file}: Service"
        policy = next(d for d in documents if d["kind"] == "NetworkPolicy")
        opened = [p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]]
        assert set(opened) == remote | {admin}, f"{file}: NetworkPolicy opens {opened}"


def words(text):
    """The lines of a configuration of Valkey: each name with its value."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return dict(lines)


def size(text):
    number, unit = re.fullmatch(r"(\d+)(mb|Mi)", text).groups()
    return int(number) * 1024 * 1024


def store():
    """The gates find the quota store and may reach it; it forgets nothing and is one; its user has exactly the rights of the script."""
    file, documents, pod, gate, text = next(m for m in manifests() if m[0] == "gateway.yaml")
    settings = yaml.safe_load(text)["quota"]["store"]
    url = urllib.parse.urlsplit(settings["redis"])
    others = list(yaml.safe_load_all((DEPLOY / "kubernetes/valkey.yaml").read_text()))
    by_kind = {d["kind"]: d for d in others}
    assert len(by_kind) == len(others) == 4, "valkey.yaml: one ConfigMap, Deployment, Service and NetworkPolicy"
    service, deployment = by_kind["Service"], by_kind["Deployment"]
    server_pod = deployment["spec"]["template"]["spec"]
    server = server_pod["containers"][0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    config = words(by_kind["ConfigMap"]["data"]["valkey.conf"])

    # The way from the gate to the store.
    assert (url.scheme, url.username, url.hostname) == ("rediss", "gate", f"{service['metadata']['name']}.metrika.svc"), "redis"
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels, "valkey.yaml: labels"
    ports = {p["name"]: p["containerPort"] for p in server["ports"]}
    served = {p["port"]: ports[p["targetPort"]] for p in service["spec"]["ports"]}
    assert served == {url.port: int(config["tls-port"])} and config["port"] == "0", f"valkey.yaml: ports {served}"
    gates = next(d for d in documents if d["kind"] == "NetworkPolicy")["spec"]
    rule = {"ports": [{"protocol": "TCP", "port": url.port}]}
    assert rule | {"to": [{"podSelector": {"matchLabels": labels}}]} in gates["egress"], f"{file}: egress to the store"
    policy = by_kind["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels and policy["policyTypes"] == ["Ingress", "Egress"], "valkey.yaml: policy"
    assert policy["ingress"] == [rule | {"from": [{"podSelector": gates["podSelector"]}]}], "valkey.yaml: ingress"
    assert policy["egress"] == [], "valkey.yaml: egress"

    # The files, of which the gate sees its own password alone.
    volumes = {v["name"]: v for v in pod["volumes"]}
    at = {m["mountPath"]: volumes[m["name"]] for m in gate["volumeMounts"]}
    folder, name = settings["password_file"].rsplit("/", 1)
    secret = at[folder]["secret"]
    assert [i["path"] for i in secret.get("items", [])] == [name], f"{file}: the gate sees other passwords"
    used = {v["secret"]["secretName"] for v in confined("valkey.yaml", server_pod, server, 999)}
    assert secret["secretName"] in used, f"{file}: the store has no password of the gate"
    assert at[settings["ca_file"].rsplit("/", 1)[0]]["configMap"]["name"] not in used, f"{file}: the CA is no secret"

    # What it keeps.
    assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"]["type"] == "Recreate", "valkey.yaml: two stores"
    assert (config["maxmemory-policy"], config["save"], config["appendonly"]) == ("noeviction", '""', "no"), "valkey.yaml: memory"
    assert size(config["maxmemory"]) < size(server["resources"]["limits"]["memory"]), "valkey.yaml: maxmemory"

    # The rights: docs/operations.md has the same.
    script = re.findall(r"\bcall\((.)([A-Z]+)\1", (ROOT / "src/quota/store.lua").read_text())
    needed = {name.lower() for _, name in script} | {"evalsha", "script|load", "subscribe"}
    assert len(needed) > 20, "the script calls almost nothing: this check is broken"
    rights = by_kind["ConfigMap"]["data"]["gate.acl"].split()
    documented = re.search(r"^user gate on >PASSWORD (.*?)^```", (ROOT / "docs/operations.md").read_text(), re.DOTALL | re.MULTILINE)
    key = "{" + settings.get("prefix", "metrika-gate") + "}"
    for where, line in (("valkey.yaml", rights), ("operations.md", documented[1].replace("\\\n", " ").split())):
        assert line[:4] == [f"~{key}*", "resetchannels", f"&{key}:to:*", "-@all"], f"{where}: keys and channels {line[:4]}"
        granted = {right.removeprefix("+") for right in line[4:]}
        assert granted == needed, f"{where}: commands {sorted(granted ^ needed)}"


def kustomization():
    """kustomization.yaml names files that exist and images that occur in them."""
    folder = DEPLOY / "kubernetes"
    document = yaml.safe_load((folder / "kustomization.yaml").read_text())
    text = "".join((folder / r).read_text() for r in document["resources"])
    for image in document["images"]:
        assert f"image: {image['name']}:" in text, f"no image {image['name']}"


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


def gate_yaml(target):
    """Writes each gate.yaml to a folder, its tokens beside it, for `metrika-gate check` to read."""
    target = pathlib.Path(target)
    for file, _, _, _, text in manifests():
        folder = target / file.removesuffix(".yaml")
        folder.mkdir(parents=True)
        config = yaml.safe_load(text)
        secrets = {token["file"]: "y0_" + "x" * 37 + "\n" for token in config["tokens"].values()}
        if store := config.get("quota", {}).get("store"):
            secrets[store["password_file"]] = "password\n"
            make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", "/dev/null", "-out"]
            subprocess.run([*make, folder / "ca.crt"], check=True, capture_output=True)
            text = text.replace(store["ca_file"], f"{folder}/ca.crt")
        for given, content in secrets.items():
            path = folder / pathlib.Path(given).name
            path.touch(stat.S_IRUSR | stat.S_IWUSR)
            path.write_text(content)
            text = text.replace(given, str(path))
        (folder / "gate.yaml").write_text(text)


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


CHECKS = {f.__name__: f for f in (grace, hardening, ports, store, kustomization, rules, gate_yaml, scrape, metrics)}

if __name__ == "__main__":
    try:
        CHECKS[sys.argv[1]](*sys.argv[2:])
    except AssertionError as problem:
        sys.exit(str(problem))
