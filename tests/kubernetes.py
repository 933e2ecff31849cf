"""The part of tests/deploy.sh that reads what kustomize makes of deploy/kubernetes, and runs the gates in it.

    kubernetes.py render FOLDER          renders every kustomization to FOLDER/NAME.yaml, one kind of schema to each file
    kubernetes.py CHECK FOLDER           one check of those files: says on standard error what is wrong
    kubernetes.py run FOLDER GATE CASE   runs the pod CASE with the program GATE, in namespaces of its own; needs root
    kubernetes.py rules [--write]        compares the PrometheusRule with the rules of deploy/prometheus, or writes it
"""

import base64
import copy
import functools
import http.server
import ipaddress
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.parse

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
RULES = ROOT / "deploy/prometheus/rules.yaml"
PROMETHEUS_RULE = KUBERNETES / "overlays/monitoring/prometheusrule.yaml"
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
GATE_USER = 65532
# What Kubernetes waits if a pod names no grace period.
DEFAULT_GRACE = 30


def seconds(text):
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    assert "".join(n + u for n, u in parts) == text, f"{text} is no duration"
    return sum(int(n) * SECONDS[u] for n, u in parts)


# The parser in C is ten times as fast, where it is there.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_all(text):
    return list(yaml.load_all(text, LOADER))


# --- rendering --------------------------------------------------------------------------------------------------------
def kustomizations():
    """The folders that can be applied, by name. Components cannot."""
    found = {}
    for path in sorted(KUBERNETES.rglob("kustomization.yaml")):
        if yaml.safe_load(path.read_text())["kind"] == "Kustomization":
            assert path.parent.name not in found, f"two kustomizations have the name {path.parent.name}"
            found[path.parent.name] = path.parent
    return found


def kustomize(folder):
    run = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{folder}: {run.stderr.strip()}"
    assert not run.stderr, f"{folder}: {run.stderr.strip()}"
    return run.stdout


def render(target):
    """Renders every kustomization. Kinds of the Prometheus operator have no schema in the validator: they get files of their own."""
    target = pathlib.Path(target)
    target.mkdir(parents=True)
    names = kustomizations()
    assert len(names) >= 5, f"only {len(names)} kustomizations: this check is broken"
    for name, folder in names.items():
        render_one(target, name, folder)


def render_one(target, name, folder):
    text = kustomize(folder)
    documents = load_all(text)
    of_operator = [d for d in documents if d["apiVersion"].startswith("monitoring.coreos.com/")]
    if of_operator:
        assert len(of_operator) == len(documents), f"{name}: kinds with and without a schema"
    (target / f"{name}.{'operator' if of_operator else 'yaml'}").write_text(text)


class Workload:
    """A pod with a gate: the objects around it, and where the gate is."""

    def __init__(self, case, documents, document):
        self.case, self.documents, self.document = case, documents, document
        self.template = template_of(document)
        self.pod = self.template["spec"]
        init = self.pod.get("initContainers", [])
        self.is_sidecar = any(c["name"] == "metrika-gate" for c in init)
        self.gate = next(c for c in init + self.pod["containers"] if c["name"] == "metrika-gate")
        self.others = [c for c in init + self.pod["containers"] if c is not self.gate]
        self.config_text = self.file("/etc/metrika-gate/gate.yaml")
        self.config = yaml.safe_load(self.config_text)

    def volumes(self):
        """The volume behind each mount of the gate."""
        volumes = {v["name"]: v for v in self.pod["volumes"]}
        return {m["mountPath"]: volumes[m["name"]] for m in self.gate["volumeMounts"]}

    def config_map(self, name):
        found = [d for d in self.documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == name]
        return found[0]["data"] if found else None

    def file(self, path):
        folder, name = path.rsplit("/", 1)
        return self.config_map(self.volumes()[folder]["configMap"]["name"])[name]

    def admin_port(self):
        return int(self.config["admin"]["address"].rsplit(":", 1)[1])

    def remote_ports(self):
        return {int(l["address"].rsplit(":", 1)[1]) for l in self.config["listeners"] if l.get("allow_remote")}


def template_of(document):
    spec = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template") if document["kind"] != "PersistentVolumeClaim" else None


def workloads(folder):
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        documents = load_all(path.read_text())
        for document in documents:
            template = template_of(document)
            containers = template["spec"].get("initContainers", []) + template["spec"]["containers"] if template else []
            if any(c["name"] == "metrika-gate" for c in containers):
                yield Workload(f"{path.stem}/{document['kind']}", documents, document)


def policies(documents, labels):
    """The NetworkPolicies that select a pod with these labels."""
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            selector = document["spec"]["podSelector"].get("matchLabels", {})
            if selector.items() <= labels.items():
                yield document["spec"]


# --- checks -----------------------------------------------------------------------------------------------------------
def grace(folder):
    """Kubernetes waits longer than the gate takes to drain."""
    for one in workloads(folder):
        shutdown = one.config["shutdown"]
        need = seconds(shutdown["delay"]) + seconds(shutdown["timeout"])
        have = one.pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
        assert have > need, f"{one.case}: terminationGracePeriodSeconds is {have}, the gate may take {need}"
        assert not one.is_sidecar or shutdown["delay"] == "0s", f"{one.case}: a sidecar waits for nobody"


def confined(case, pod, container, user):
    """The container runs as this user, with nothing that it does not need."""
    context = container["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] == context["runAsGroup"] == user, f"{case}: user"
    assert context.get("readOnlyRootFilesystem") is True, f"{case}: root file system"
    assert context["allowPrivilegeEscalation"] is False, f"{case}: privilege escalation"
    assert context["capabilities"] == {"drop": ["ALL"]}, f"{case}: capabilities"
    seccomp = context.get("seccompProfile") or pod["securityContext"]["seccompProfile"]
    assert seccomp["type"] == "RuntimeDefault", f"{case}: seccomp"
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount and mount["readOnly"], f"{case}: mount {mount['name']}"


def secret_volumes(pod):
    return [v for v in pod["volumes"] if "secret" in v]


def hardening(folder):
    """The gate runs with nothing that it does not need, and only it reads the tokens."""
    seen = 0
    for one in workloads(folder):
        seen += 1
        confined(one.case, one.pod, one.gate, GATE_USER)
        secrets = secret_volumes(one.pod)
        names = {v["name"] for v in secrets}
        for other in one.others:
            mounted = {m["name"] for m in other.get("volumeMounts", [])}
            assert not mounted & names, f"{one.case}: {other['name']} has the tokens"
            assert other["securityContext"]["runAsUser"] != GATE_USER, f"{one.case}: {other['name']} has the gate's user"
        mode = 0o444 if one.is_sidecar else 0o440
        assert {v["secret"]["defaultMode"] for v in secrets} == {mode}, f"{one.case}: mode of the secrets"
        allowed = {t.get("allow_mode") for t in one.config["tokens"].values()}
        assert allowed == ({"0444"} if one.is_sidecar else {None}), f"{one.case}: allow_mode {allowed}"
        account = "/var/run/secrets/kubernetes.io/serviceaccount"
        hidden = "emptyDir" in one.volumes().get(account, {})
        assert hidden or one.pod.get("automountServiceAccountToken") is False, f"{one.case}: the gate has a service account"
        if not one.is_sidecar:
            assert one.pod["securityContext"]["fsGroup"] == GATE_USER, f"{one.case}: fsGroup"
    assert seen >= 5, f"only {seen} workloads: this check is broken"


def ports(folder):
    """Container ports, probes, Services and NetworkPolicies speak of the ports that gate.yaml opens."""
    for one in workloads(folder):
        admin, remote = one.admin_port(), one.remote_ports()
        names = {p["name"]: p["containerPort"] for p in one.gate["ports"]}
        assert set(names.values()) == remote | {admin}, f"{one.case}: containerPorts {names}"
        assert names["gate-admin"] == admin and one.config["admin"]["allow_remote"], f"{one.case}: gate-admin"
        labels = one.template["metadata"]["labels"]
        assert labels.get("metrika-gate/metrics") == "true", f"{one.case}: Prometheus does not find the pod"
        paths = {kind: one.gate[kind]["httpGet"]["path"] for kind in one.gate if kind.endswith("Probe")}
        started = {"startupProbe": "/livez"} if one.is_sidecar else {"startupProbe": "/startupz", "readinessProbe": "/readyz"}
        assert paths == started | {"livenessProbe": "/livez"}, f"{one.case}: probes {paths}"
        for kind in paths:
            assert one.gate[kind]["httpGet"]["port"] == "gate-admin", f"{one.case}: {kind}"
        # /livez reports a worker that does not respond after five seconds.
        assert one.gate["livenessProbe"]["timeoutSeconds"] > 5, f"{one.case}: timeout of the liveness probe"
        own = [c for c in one.others for c in c.get("ports", [])]
        numbers = [p["containerPort"] for p in own] + list(names.values())
        numbers += [int(l["address"].rsplit(":", 1)[1]) for l in one.config["listeners"] if not l.get("allow_remote")]
        assert len(numbers) == len(set(numbers)), f"{one.case}: two containers use one port"
        container_ports = names | {p["name"]: p["containerPort"] for p in own}
        for service in (d["spec"] for d in one.documents if d["kind"] == "Service"):
            if service["selector"].items() <= labels.items():
                targets = {container_ports[p["targetPort"]] for p in service["ports"]}
                assert admin not in targets, f"{one.case}: the admin port is behind a Service"
        for policy in policies(one.documents, labels):
            opened = {p["port"] for rule in policy["ingress"] for p in rule["ports"]}
            assert opened == set(container_ports.values()), f"{one.case}: NetworkPolicy opens {opened}"
        for container in one.others:
            for variable in container.get("env", []):
                if variable["name"] == "METRIKA_API_URL":
                    url = urllib.parse.urlsplit(variable["value"])
                    assert f"{url.hostname}:{url.port}" in [l["address"] for l in one.config["listeners"]], f"{one.case}: {url}"


def harmless(folder):
    """The sidecar adds itself to a pod and changes nothing else of it, and no policy applies that the application has not."""
    for name, parts in (("sidecar", {"app.yaml"}), ("job", {"job.yaml", "cronjob.yaml", "volume.yaml"})):
        before = [d for part in sorted(parts) for d in load_all((KUBERNETES / "overlays" / name / part).read_text())]
        after = load_all((pathlib.Path(folder) / f"{name}.yaml").read_text())
        kinds = sorted(d["kind"] for d in after if d["kind"] != "ConfigMap")
        assert kinds == sorted(d["kind"] for d in before), f"{name}: the component adds objects: {kinds}"
        for document in before:
            same = next(d for d in after if (d["kind"], d["metadata"]["name"]) == (document["kind"], document["metadata"]["name"]))
            rest = copy.deepcopy(same)
            template = template_of(rest)
            if template:
                pod = template["spec"]
                gate = pod["initContainers"].pop(0)
                assert gate["name"] == "metrika-gate" and gate["restartPolicy"] == "Always", f"{name}: the gate is not the first"
                assert "readinessProbe" not in gate, f"{name}: the gate decides whether the application is ready"
                assert not {p["containerPort"] for p in gate["ports"]} & {80, 443, 3000, 5000, 8000, 8080, 8443, 9090}, f"{name}: a usual port"
                if not pod["initContainers"]:
                    del pod["initContainers"]
                own = [v for v in pod["volumes"] if not v["name"].startswith("gate-")]
                assert len(own) + 3 == len(pod["volumes"]), f"{name}: volumes {pod['volumes']}"
                pod["volumes"] = own
                if not own:
                    del pod["volumes"]
                del template["metadata"]["labels"]["metrika-gate/metrics"]
            # Generated names and the tags of images are not of the component.
            text = re.sub(r"(metrika-export)-[a-z0-9]{10}\b", r"\1", yaml.safe_dump(rest))
            assert without_images(yaml.safe_load(text)) == without_images(document), f"{name}: {document['kind']} differs:\n{text}"


def without_images(value):
    if isinstance(value, dict):
        return {k: without_images(v) for k, v in value.items() if k != "image"}
    return [without_images(v) for v in value] if isinstance(value, list) else value


def alike(folder):
    """The container is the same everywhere, but for what a place needs: the copies in base and components do not drift apart."""
    found = {}
    for one in workloads(folder):
        gate = copy.deepcopy(one.gate)
        for key in ("ports", "resources", "volumeMounts", "startupProbe", "readinessProbe", "restartPolicy"):
            gate.pop(key, None)
        gate["securityContext"].pop("seccompProfile", None)
        found[one.case] = gate
    assert len({repr(g) for g in found.values()}) == 1, f"the gates differ: {found}"
    sidecars = [repr(one.gate) for one in workloads(folder) if one.is_sidecar]
    assert len(sidecars) >= 3 and len(set(sidecars)) == 1, "the sidecars differ"
    for image in {one.gate["image"] for one in workloads(folder)}:
        version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        assert image == f"metrika-gate:{version}", f"the image is {image}, Cargo.toml says {version}"
    base, gateway = (next(one.config for one in workloads(folder) if one.case == f"{n}/Deployment") for n in ("base", "gateway"))
    base, gateway = copy.deepcopy(base), copy.deepcopy(gateway)
    gateway["quota"].pop("store")
    gateway.pop("service_accounts")
    for config in (base, gateway):
        config["listeners"] = [{**config["listeners"][0], "name": "one"}]
        for caller in config["callers"]:
            caller.pop("match")
    assert base == gateway, "gate.yaml of base and of gateway differ in more than the store and in how callers are known"


def rolls(folder):
    """A changed gate.yaml makes new pods; the Secret with the tokens has a fixed name, so that a changed token does not."""
    with tempfile.TemporaryDirectory() as work:
        tree = pathlib.Path(work) / "kubernetes"
        shutil.copytree(KUBERNETES, tree)
        for config in tree.rglob("gate.yaml"):
            config.write_text(config.read_text() + "# changed\n")
        changed = pathlib.Path(work) / "rendered"
        changed.mkdir()
        for name in {one.case.split("/")[0] for one in workloads(folder)}:
            render_one(changed, name, tree / kustomizations()[name].relative_to(KUBERNETES))
        after = {one.case: one for one in workloads(changed)}
        for one in workloads(folder):
            of = [w.volumes()["/etc/metrika-gate"]["configMap"]["name"] for w in (one, after[one.case])]
            assert of[0] != of[1], f"{one.case}: a changed gate.yaml leaves the pods as they are"
            names = {v["secret"]["secretName"] for v in secret_volumes(one.pod)}
            assert names <= {"metrika-tokens", "metrika-quota-store", "metrika-quota-store-tls"}, f"{one.case}: {names}"


PRIVATE = [ipaddress.ip_network(n) for n in (
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7",
    "fd00::/8", "fe80::/10")]
EVERYTHING = [ipaddress.ip_network(n) for n in ("0.0.0.0/0", "::/0")]


def networks(folder):
    """No range fits one network plugin only: all of a private range, or everything. Metrica is reached on the public side of both families."""
    metadata = ipaddress.ip_network("169.254.169.254/32")
    seen = 0
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        documents = load_all(path.read_text())
        for policy in (d["spec"] for d in documents if d["kind"] == "NetworkPolicy"):
            for rule in policy.get("ingress", []) + policy.get("egress", []):
                for block in (p["ipBlock"] for p in rule.get("to", []) + rule.get("from", []) if "ipBlock" in p):
                    seen += 1
                    network = ipaddress.ip_network(block["cidr"])
                    excepted = [ipaddress.ip_network(n) for n in block.get("except", [])]
                    assert network in EVERYTHING + PRIVATE, f"{path.stem}: {network}"
                    assert all(n in [*PRIVATE, metadata] for n in excepted), f"{path.stem}: {excepted}"
                    if network in EVERYTHING:
                        same = [n for n in PRIVATE if n.version == network.version and n != ipaddress.ip_network("fd00::/8")]
                        assert set(same) == set(excepted), f"{path.stem}: {network} includes private addresses"
    for one in workloads(folder):
        for caller in one.config["callers"]:
            for source in caller["match"].get("source", []):
                seen += 1
                assert ipaddress.ip_network(source) in PRIVATE, f"{one.case}: {source}"
        addresses = [l["address"] for l in one.config["listeners"] if l.get("allow_remote")] + [one.config["admin"]["address"]]
        assert all(a.startswith("[::]:") for a in addresses), f"{one.case}: {addresses} are not of both address families"
        # 127.0.0.1 is in every pod, whatever the cluster's address family; [::1] is not.
        local = [l["address"] for l in one.config["listeners"] if not l.get("allow_remote")]
        assert all(a.startswith("127.0.0.1:") for a in local), f"{one.case}: {local}"
        for service in (d["spec"] for d in one.documents if d["kind"] == "Service" and one.case.startswith(("base", "gateway"))):
            if service["selector"] == {"app.kubernetes.io/name": "metrika-gate"}:
                assert service.get("ipFamilyPolicy") == "PreferDualStack", f"{one.case}: ipFamilyPolicy"
    assert seen > 10, "almost no network: this check is broken"


def available(folder):
    """The shared gateway outlives a node and a rollout: two gates on two nodes, one of them always there."""
    one = next(w for w in workloads(folder) if w.case == "gateway/Deployment")
    spec, labels = one.document["spec"], one.template["metadata"]["labels"]
    assert spec["replicas"] == 2 and spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, "replicas"
    budget = next(d["spec"] for d in one.documents if d["kind"] == "PodDisruptionBudget")
    assert budget["minAvailable"] == 1 and budget["selector"]["matchLabels"].items() <= labels.items(), "PodDisruptionBudget"
    spread = {c["topologyKey"]: c for c in one.pod["topologySpreadConstraints"]}
    assert set(spread) == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}, f"spread {set(spread)}"
    for constraint in spread.values():
        assert constraint["labelSelector"]["matchLabels"].items() <= labels.items(), "labels of the spread"
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway", "one node must be enough"


def accounts(folder):
    """Callers of the shared gateway are known by their service accounts alone, and the gate has what it needs to verify them."""
    one = next(w for w in workloads(folder) if w.case == "gateway/Deployment")
    settings = one.config["service_accounts"]
    assert len(one.config["listeners"]) == 1, "callers need no listener each"
    for caller in one.config["callers"]:
        assert set(caller["match"]) == {"service_account"}, f"{caller['id']} is known by {set(caller['match'])}"
        assert all(re.fullmatch(r"[a-z0-9-]+/[a-z0-9.-]+", a) for a in caller["match"]["service_account"]), caller["id"]
    files = {}
    for mount, volume in one.volumes().items():
        for source in volume.get("projected", {}).get("sources", []):
            token = source.get("serviceAccountToken")
            names = [token["path"]] if token else [i["path"] for i in source["configMap"]["items"]]
            files |= {f"{mount}/{name}": source | {"mode": volume["projected"]["defaultMode"]} for name in names}
    for key in ("bearer_file", "ca_file"):
        assert files.get(settings[key], {}).get("mode") == 0o440, f"{key}: {settings[key]} is not mounted, or with another mode"
    # The gate's own token is for the API server, and a token for the gate is for nobody else.
    assert "audience" not in files[settings["bearer_file"]]["serviceAccountToken"], "the audience of the gate's own token"
    documented = (ROOT / "docs/service_accounts.md").read_text()
    assert f"serviceAccountToken: {{path: token, audience: {settings['audience']}, " in documented, f"audience {settings['audience']}"
    assert files[settings["ca_file"]]["configMap"]["name"] == "kube-root-ca.crt", "the authority of the API server"
    assert settings["jwks_url"] == "https://kubernetes.default.svc/openid/v1/jwks", settings["jwks_url"]
    gates = next(policies(one.documents, one.template["metadata"]["labels"]))
    rules = [r for r in gates["egress"] if {p["port"] for p in r["ports"]} == {443, 6443}]
    assert len(rules) == 1, "egress to the API server"


def words(text):
    """The lines of a configuration of Valkey: each name with its value."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return dict(lines)


def size(text):
    number, unit = re.fullmatch(r"(\d+)(mb|Mi)", text).groups()
    return int(number) * 1024 * 1024


def store(folder):
    """The gates find the quota store and may reach it; it forgets nothing and is one; its user has exactly the rights of the script."""
    one = next(w for w in workloads(folder) if w.case == "gateway/Deployment")
    settings = one.config["quota"]["store"]
    url = urllib.parse.urlsplit(settings["redis"])
    name = "metrika-quota-store"
    by_kind = {d["kind"]: d for d in one.documents if d["metadata"]["name"] == name or d["metadata"]["name"].startswith(f"{name}-")}
    assert set(by_kind) == {"ConfigMap", "Deployment", "Service", "NetworkPolicy"}, f"the store has {set(by_kind)}"
    service, deployment = by_kind["Service"], by_kind["Deployment"]
    server_pod = deployment["spec"]["template"]["spec"]
    server = server_pod["containers"][0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    config = words(by_kind["ConfigMap"]["data"]["valkey.conf"])

    # The way from the gate to the store.
    assert (url.scheme, url.username, url.hostname) == ("rediss", "gate", f"{name}.metrika.svc"), "redis"
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels, "labels of the store"
    opened = {p["name"]: p["containerPort"] for p in server["ports"]}
    served = {p["port"]: opened[p["targetPort"]] for p in service["spec"]["ports"]}
    assert served == {url.port: int(config["tls-port"])} and config["port"] == "0", f"ports of the store {served}"
    gates = next(policies(one.documents, one.template["metadata"]["labels"]))
    rule = {"ports": [{"protocol": "TCP", "port": url.port}]}
    assert rule | {"to": [{"podSelector": {"matchLabels": labels}}]} in gates["egress"], "egress to the store"
    policy = by_kind["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels and policy["policyTypes"] == ["Ingress", "Egress"], "policy of the store"
    assert policy["ingress"] == [rule | {"from": [{"podSelector": gates["podSelector"]}]}], "ingress of the store"
    assert policy["egress"] == [], "egress of the store"

    # The files, of which the gate sees its own password alone.
    at = one.volumes()
    password, file = settings["password_file"].rsplit("/", 1)
    secret = at[password]["secret"]
    assert [i["path"] for i in secret.get("items", [])] == [file], "the gate sees other passwords"
    confined("the store", server_pod, server, 999)
    assert server_pod["securityContext"]["fsGroup"] == 999 and server_pod["automountServiceAccountToken"] is False, "the store"
    secrets = secret_volumes(server_pod)
    assert {v["secret"]["defaultMode"] for v in secrets} == {0o440}, "mode of the store's secrets"
    used = {v["secret"]["secretName"] for v in secrets}
    assert secret["secretName"] in used, "the store has no password of the gate"
    assert at[settings["ca_file"].rsplit("/", 1)[0]]["configMap"]["name"] not in used, "the CA is no secret"

    # What it keeps.
    assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"]["type"] == "Recreate", "two stores"
    assert (config["maxmemory-policy"], config["save"], config["appendonly"]) == ("noeviction", '""', "no"), "memory of the store"
    assert size(config["maxmemory"]) < size(server["resources"]["limits"]["memory"]), "maxmemory"

    # The rights: docs/quota_store.md has the same.
    script = re.findall(r"\bcall\((.)([A-Z]+)\1", (ROOT / "src/quota/store.lua").read_text())
    needed = {name.lower() for _, name in script} | {"evalsha", "script|load", "subscribe"}
    assert len(needed) > 20, "the script calls almost nothing: this check is broken"
    text = by_kind["ConfigMap"]["data"]["gate.acl"]
    assert text.count("\n") == 1, "gate.acl has more than one line, which would end the line of the user"
    documented = re.search(r"^user gate on >PASSWORD (.*?)^```", (ROOT / "docs/quota_store.md").read_text(), re.DOTALL | re.MULTILINE)
    key = "{" + settings.get("prefix", "metrika-gate") + "}"
    for where, line in (("gate.acl", text.split()), ("quota_store.md", documented[1].replace("\\\n", " ").split())):
        assert line[:4] == [f"~{key}*", "resetchannels", f"&{key}:to:*", "-@all"], f"{where}: keys and channels {line[:4]}"
        granted = {right.removeprefix("+") for right in line[4:]}
        assert granted == needed, f"{where}: commands {sorted(granted ^ needed)}"


# --- kinds of the Prometheus operator ---------------------------------------------------------------------------------
# The fields that these objects use, with their types, from the operator's API reference: a field that is not here is a
# mistake, or a new line here after a look at the reference.
TEXTS = {str: str}
METADATA = {"name": str, "namespace": str, "labels": TEXTS}
DURATION = re.compile(r"(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
RELABELING = {"sourceLabels": [str], "targetLabel": str, "replacement": str, "regex": str, "action": str, "separator": str}
KINDS = {
    "PodMonitor": {
        "apiVersion": str, "kind": str, "metadata": METADATA, "spec": {
            "namespaceSelector": {"any": bool, "matchNames": [str]},
            "selector": {"matchLabels": TEXTS},
            "podMetricsEndpoints": [{
                "port": str, "path": str, "scheme": str, "interval": DURATION, "scrapeTimeout": DURATION,
                "honorLabels": bool, "relabelings": [RELABELING], "metricRelabelings": [RELABELING]}],
        },
    },
    "PrometheusRule": {
        "apiVersion": str, "kind": str, "metadata": METADATA, "spec": {
            "groups": [{
                "name": str, "interval": DURATION, "limit": int,
                "rules": [{
                    "record": str, "alert": str, "expr": str, "for": DURATION, "keep_firing_for": DURATION,
                    "labels": TEXTS, "annotations": TEXTS}],
            }],
        },
    },
}


def fits(value, shape, where):
    if isinstance(shape, re.Pattern):
        assert isinstance(value, str) and value and shape.fullmatch(value), f"{where}: {value!r} is no duration"
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{where}: no list"
        for at, one in enumerate(value):
            fits(one, shape[0], f"{where}[{at}]")
    elif shape is TEXTS:
        assert isinstance(value, dict) and all(isinstance(v, str) for v in value.values()), f"{where}: not texts: {value}"
    elif isinstance(shape, dict):
        assert isinstance(value, dict), f"{where}: no object"
        unknown = set(value) - set(shape)
        assert not unknown, f"{where}: unknown {sorted(unknown)}"
        for key, inner in value.items():
            fits(inner, shape[key], f"{where}.{key}")
    else:
        assert type(value) is shape, f"{where}: {value!r} is no {shape.__name__}"


def operator(folder):
    """The kinds of the Prometheus operator have only fields that it has, and the monitor finds each pod with a gate by its rules' job."""
    documents = [d for path in pathlib.Path(folder).glob("*.operator") for d in load_all(path.read_text())]
    assert {d["kind"] for d in documents} == set(KINDS), f"{[d['kind'] for d in documents]}"
    for document in documents:
        assert document["apiVersion"] == "monitoring.coreos.com/v1", document["apiVersion"]
        fits(document, KINDS[document["kind"]], document["kind"])
        for group in document["spec"].get("groups", []):
            for rule in group["rules"]:
                assert ("record" in rule) != ("alert" in rule), f"{rule}: one of record and alert"
                assert "record" not in rule or not {"for", "annotations", "keep_firing_for"} & set(rule), f"{rule}: of alerts only"
    monitor = next(d["spec"] for d in documents if d["kind"] == "PodMonitor")
    endpoint = monitor["podMetricsEndpoints"][0]
    for one in workloads(folder):
        labels = one.template.get("metadata", {}).get("labels", {})
        assert monitor["selector"]["matchLabels"].items() <= labels.items(), f"{one.case}: the PodMonitor does not select it"
        assert endpoint["port"] in {p["name"] for p in one.gate["ports"]}, f"{one.case}: no port {endpoint['port']}"
    jobs = set(re.findall(r'job="([^"]*)"', RULES.read_text()))
    set_to = {r["replacement"] for r in endpoint["relabelings"] if r.get("targetLabel") == "job"}
    assert jobs == set_to, f"the rules name {jobs}, the PodMonitor sets {set_to}"
    # Prometheus comes from the namespace that the policies admit.
    admitted = [r for one in workloads(folder) for p in policies(one.documents, one.template.get("metadata", {}).get("labels", {})) for r in p["ingress"]
                if {"protocol": "TCP", "port": one.admin_port()} in r["ports"]]
    namespaces = {f["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for r in admitted for f in r["from"]}
    assert namespaces == {d["metadata"]["namespace"] for d in documents}, f"the policies admit {namespaces}"


def rules(*flags):
    """The PrometheusRule is rules.yaml and recording.yaml, two levels deeper."""
    texts = [(KUBERNETES.parent / "prometheus" / file).read_text() for file in ("rules.yaml", "recording.yaml")]
    body = "".join(text.partition("\ngroups:\n")[2] for text in texts)
    wanted = "# Written from rules.yaml and recording.yaml in deploy/prometheus, which explain the rules: tests/kubernetes.py rules --write\n" \
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: metrika-gate\nspec:\n  groups:\n" + textwrap.indent(body, "  ")
    if flags == ("--write",):
        PROMETHEUS_RULE.write_text(wanted)
    assert PROMETHEUS_RULE.read_text() == wanted, "prometheusrule.yaml is not as the rules are; write it with: tests/kubernetes.py rules --write"
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    assert yaml.safe_load(wanted)["spec"]["groups"] == groups, "the PrometheusRule has other rules"


# --- running ----------------------------------------------------------------------------------------------------------
NETWORKS = {"ipv6": "fd00:10::7", "ipv4": "10.1.2.7"}
SECRET = "test-analytics-0001"


def cases(folder):
    """Each pod with a gate, in a cluster of either address family."""
    for one in workloads(folder):
        for network in NETWORKS:
            print(one.case, network)


def volume(root, mount, one, source):
    """A volume as the kubelet makes it: files behind links in a folder that everyone can write, owned by root and the pod's group."""
    files, mode = {}, 0o644
    if "configMap" in source:
        files = one.config_map(source["configMap"]["name"]) or {"ca.crt": certificate()}
    elif "secret" in source:
        mode = source["secret"]["defaultMode"]
        wanted = list(one.config["tokens"].values())
        names = [pathlib.Path(t["file"]) for t in wanted] + [pathlib.Path(one.config["quota"]["store"]["password_file"])
                                                             for _ in [0] if "store" in one.config.get("quota", {})]
        files = {p.name: SECRET + "\n" for p in names if str(p.parent) == mount}
        assert files, f"{one.case}: nothing of gate.yaml is in {mount}"
    elif "projected" in source:
        # The kubelet gives the group of the pod the right to read them.
        mode = source["projected"]["defaultMode"]
        for part in source["projected"]["sources"]:
            if "serviceAccountToken" in part:
                files[part["serviceAccountToken"]["path"]] = cluster().bearer
            else:
                files |= {item["path"]: cluster().authority for item in part["configMap"]["items"]}
    place = root / mount.lstrip("/")
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", place], check=True)
    data = place / "..2026_01_01"
    data.mkdir(mode=0o755)
    group = one.pod.get("securityContext", {}).get("fsGroup", 0)
    for name, content in files.items():
        path = data / name
        path.write_text(content)
        os.chown(path, 0, group)
        # Only the group may read more than the mode says, and only where there is one.
        path.chmod(mode)
        (place / name).symlink_to(f"..data/{name}")
    (place / "..data").symlink_to(data.name)
    return place


def certificate():
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test", "-keyout", "/dev/null"]
    return subprocess.run(make, check=True, capture_output=True, text=True).stdout


class Cluster:
    """A stand-in for the API server as far as the gate knows it, and for the issuer of the tokens of pods."""

    bearer = "the-token-of-the-gate"

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=cluster"]
        (self.folder / "names").write_text("subjectAltName=DNS:kubernetes.default.svc\nbasicConstraints=CA:FALSE\n")
        self.openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt")
        self.openssl("req", *curve, "-keyout", "tls.key", "-out", "tls.csr")
        self.openssl("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "tls.crt")
        self.openssl("genrsa", "-out", "issuer.key", "2048")
        self.authority = (self.folder / "ca.crt").read_text()

    def openssl(self, *words, given=b""):
        return subprocess.run(["openssl", *words], cwd=self.folder, input=given, check=True, capture_output=True).stdout

    def token(self, account, settings, **others):
        """A token of a pod, as Kubernetes issues it."""
        namespace, name = account.split("/")
        now = int(time.time())
        claims = {"iss": settings["issuer"], "aud": [settings["audience"]], "iat": now, "nbf": now, "exp": now + 3600,
                  "sub": f"system:serviceaccount:{namespace}:{name}",
                  "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name}}} | others
        text = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "one"}, claims))
        return f"{text}.{encoded(self.openssl('dgst', '-sha256', '-sign', 'issuer.key', given=text.encode()))}"

    def serve(self, port):
        """Serves the public key of the issuer to whoever has the token of the gate."""
        modulus = self.openssl("rsa", "-in", "issuer.key", "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": encoded(bytes.fromhex(modulus)), "e": "AQAB"}
        body = json.dumps({"keys": [key]}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                may = self.path == "/openid/v1/jwks" and self.headers["Authorization"] == f"Bearer {Cluster.bearer}"
                self.send_response(200 if may else 401)
                self.send_header("Content-Length", str(len(body) if may else 0))
                self.end_headers()
                self.wfile.write(body if may else b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def cluster():
    return Cluster()


def seal(place):
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)


def system(root, gate):
    """A file system with the program and the libraries of this machine."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
    for name in ("usr", "lib", "lib64", "bin", "sbin"):
        source = pathlib.Path("/") / name
        if source.is_symlink():
            (root / name).symlink_to(source.readlink())
        elif source.exists():
            (root / name).mkdir()
            subprocess.run(["mount", "--rbind", source, root / name], check=True)
    for name in ("proc", "etc", "opt", "tmp", "var/run", "export"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    (root / "opt/metrika-gate").touch()
    subprocess.run(["mount", "--bind", gate, root / "opt/metrika-gate"], check=True)


def interface(network):
    """The network of a pod: loopback, and one address of one family, which is on loopback too: nothing comes from outside."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if network == "ipv4":
        # As a plugin without IPv6 does it: [::] can still be bound, ::1 is gone.
        for name in ("all", "default", "lo"):
            pathlib.Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    address = NETWORKS[network]
    subprocess.run(["ip", "addr", "add", address, "dev", "lo"], check=True)
    return f"[{address}]" if network == "ipv6" else address


def curl(*words):
    run = subprocess.run(["curl", "-sS", "--max-time", "10", "-o", "/dev/stdout", "-w", "\n%{http_code}", *words], capture_output=True, text=True, check=False)
    body, _, status = run.stdout.rpartition("\n")
    return status, body + run.stderr


def until(what, ask, limit):
    end = time.monotonic() + limit
    while True:
        status, body = ask()
        if status == "200":
            return body
        assert time.monotonic() < end, f"{what}: {status} {body}"
        time.sleep(0.1)


def as_user(root, one, command, variables=(), group=None, user=GATE_USER):
    """Runs a command as the container of the gate, or another one, would."""
    groups = f"--groups={group}" if group else "--clear-groups"
    words = ["chroot", root, "setpriv", f"--reuid={user}", f"--regid={user}", groups, "--no-new-privs", "--bounding-set=-all", *command]
    return subprocess.Popen(words, env=dict(variables, PATH="/usr/sbin:/usr/bin:/sbin:/bin"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def inside(folder, gate, case, network):
    """One pod: `check` accepts its files as they are mounted, the gate starts, the probes succeed, a request is served, and SIGTERM ends it in time."""
    one = next(w for w in workloads(folder) if w.case == case)
    root = pathlib.Path(tempfile.mkdtemp())
    host = interface(network)
    system(root, gate)
    mounted = [volume(root, mount, one, source) for mount, source in one.volumes().items()]
    fake_folder = root / "etc/fake"
    fake_folder.mkdir()
    token = f"{SECRET}=shop:read,write:12345678"
    fake = subprocess.Popen([gate, "fake", "--token", token, "--ca-out", fake_folder / "ca.pem", "--knob", "logs?reads=1&parts=2"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    upstream = "upstream: {url: https://api-metrika.yandex.net"
    assert one.config_text.count(upstream + "}\n") == 1, f"{case}: no line {upstream}"
    config = root / "etc/metrika-gate/..2026_01_01/gate.yaml"
    text = one.config_text.replace(upstream, upstream + ", ca_file: /etc/fake/ca.pem, connect_to: '127.0.0.1:8443'")
    if "service_accounts" in one.config:
        assert text.count("  jwks_url: ") == 1, f"{case}: no line with jwks_url"
        text = text.replace("  jwks_url: ", "  connect_to: '127.0.0.1:6443'\n  jwks_url: ")
        cluster().serve(6443)
    config.write_text(text)
    for place in mounted:
        seal(place)
    while not (fake_folder / "ca.pem").exists():
        assert fake.poll() is None, "the stand-in does not start"
        time.sleep(0.05)
    group = one.pod.get("securityContext", {}).get("fsGroup")
    program = "/opt/metrika-gate"
    checked = as_user(root, one, [program, "check", "--config", "/etc/metrika-gate/gate.yaml"], group=group)
    said, _ = checked.communicate(timeout=30)
    assert checked.returncode == 0, f"{case}: check ends with {checked.returncode}:\n{said}"
    running = as_user(root, one, [program, *one.gate["args"]], group=group)
    try:
        probe(one, host)
        serve(one, host)
        if case.startswith("job/"):
            export(root, one)
    except AssertionError as problem:
        running.kill()
        log, _ = running.communicate()
        raise AssertionError(f"{case} in a cluster with {network}: {problem}\n{log[-4000:]}") from problem
    start = time.monotonic()
    running.terminate()
    limit = one.pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
    log, _ = running.communicate(timeout=limit)
    assert running.returncode == 0, f"{case}: ended with {running.returncode}:\n{log[-4000:]}"
    print(f"{case}, {network}: ended in {time.monotonic() - start:.1f} s of {limit} s")
    fake.terminate()


def probe(one, host):
    """The kubelet asks the address of the pod."""
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        if kind in one.gate:
            settings = one.gate[kind]
            limit = settings.get("periodSeconds", 10) * settings["failureThreshold"]
            path = settings["httpGet"]["path"]
            until(f"{kind} {path}", lambda: curl("-g", f"http://{host}:{one.admin_port()}{path}"), limit)
    body = until("metrics", lambda: curl("-g", f"http://{host}:{one.admin_port()}/metrics"), 30)
    assert "metrika_gate_build_info" in body, "no metrics"


def serve(one, host):
    """A caller with the URL of the manifests is served, by the name of the Service where there is one."""
    path = "/management/v1/counter/12345678"
    if one.is_sidecar:
        urls = {v["value"] for c in one.others for v in c["env"] if v["name"] == "METRIKA_API_URL"}
        assert len(urls) == 1, f"URLs {urls}"
        until("a request", lambda: curl(urls.copy().pop() + path), 30)
        status, _ = curl("-g", f"http://{host}:{urls.pop().rsplit(':', 1)[1]}{path}")
        assert status == "000", f"the sidecar serves others than its pod: {status}"
        return
    settings = one.config.get("service_accounts")
    accounts = [a for c in one.config["callers"] for a in c["match"].get("service_account", [])]

    def proof(account, **others):
        return ["-H", f"X-Gate-Service-Account: {cluster().token(account, settings, **others)}"] if settings else []

    for port in one.remote_ports():
        name = f"metrika-gate.metrika.svc:{port}"
        there = ["--connect-to", f"{name}:{host}:{port}", f"http://{name}{path}"]
        for account in accounts or [None]:
            until(f"a request of {account}", lambda: curl(*proof(account), *there), 30)
        status, _ = curl(*proof(*accounts[:1] or [None]), "--connect-to", f"other:{port}:{host}:{port}", f"http://other:{port}{path}")
        assert status == "403", f"another host is answered with {status}"
        if settings:
            strangers = {"nobody": [], "another account": proof("default/default"),
                         "a token for the API server": proof(accounts[0], aud=["https://kubernetes.default.svc"])}
            for who, fields in strangers.items():
                status, body = curl(*fields, *there)
                assert status == "401", f"{who} is answered with {status}: {body}"


def export(root, one):
    """The script of the Job writes every part, cleans the log request, and does nothing the second time."""
    container = one.others[0]
    variables = {v["name"]: v["value"] for v in container["env"]} | {"PAUSE": "0", "DAY": "2026-01-02"}
    user = container["securityContext"]["runAsUser"]
    os.chown(root / "export", 0, one.pod["securityContext"]["fsGroup"])
    (root / "export").chmod(0o2775)
    (root / "export.sh").write_text((KUBERNETES / "overlays/job/export.sh").read_text())
    for expected in ("part 1: ", "2026-01-02 is already exported"):
        running = as_user(root, one, ["/bin/sh", "/export.sh"], variables, group=one.pod["securityContext"]["fsGroup"], user=user)
        said, _ = running.communicate(timeout=60)
        assert running.returncode == 0 and expected in said, f"export.sh ends with {running.returncode}:\n{said}"
    names = sorted(p.name for p in (root / "export").iterdir())
    stem = "visits-12345678-2026-01-02"
    assert names == [f"{stem}.complete", f"{stem}.part0.tsv", f"{stem}.part1.tsv"], f"exported {names}"
    assert all((root / "export" / n).stat().st_size for n in names[1:]), "an empty part"
    _, body = curl("http://127.0.0.1:18080/management/v1/counter/12345678/logrequests")
    assert body.count('"cleaned_by_user"') == 1 and body.count('"request_id"') == 1, f"log requests that are left: {body}"


def run(folder, gate, case, network):
    spaces = ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    subprocess.run([*spaces, sys.executable, __file__, "inside", folder, os.path.abspath(gate), case, network], check=False).check_returncode()


CHECKS = {f.__name__: f for f in (
    render, grace, hardening, ports, harmless, alike, rolls, networks, available, accounts, store, operator, rules, cases, run, inside)}

if __name__ == "__main__":
    try:
        CHECKS[sys.argv[1]](*sys.argv[2:])
    except (AssertionError, subprocess.CalledProcessError) as problem:
        sys.exit(str(problem))
