#!/usr/bin/env python3
"""Breaks deploy/kubernetes, one way at a time, and sees that the check of kubernetes.py that should notice it fails."""

import pathlib
import shutil
import sys
import tempfile

import kubernetes

KUBERNETES = kubernetes.KUBERNETES

# The check, the file, a text of which the first is replaced, and what it becomes.
MUTANTS = [
    ("grace", "base/deployment.yaml", "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30"),
    ("grace", "overlays/sidecar/gate.yaml", "delay: 0s, timeout: 5s", "delay: 0s, timeout: 30s"),
    ("grace", "overlays/job/gate.yaml", "delay: 0s, timeout: 5s", "delay: 1s, timeout: 5s"),
    ("hardening", "base/deployment.yaml", "            runAsUser: 65532\n", "            runAsUser: 0\n"),
    ("hardening", "base/deployment.yaml", "defaultMode: 0440", "defaultMode: 0444"),
    ("hardening", "base/deployment.yaml", "      automountServiceAccountToken: false\n", ""),
    ("hardening", "components/sidecar/pod.yaml", "            readOnlyRootFilesystem: true\n", ""),
    ("hardening", "components/sidecar/pod.yaml", "            - {name: gate-no-account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}\n", ""),
    ("hardening", "overlays/sidecar/gate.yaml", ', allow_mode: "0444"', ""),
    ("hardening", "overlays/sidecar/app.yaml", "            runAsUser: 10001\n", "            runAsUser: 65532\n"),
    ("hardening", "overlays/job/job.yaml", "            - {name: export, mountPath: /export}\n",
     "            - {name: export, mountPath: /export}\n            - {name: gate-tokens, mountPath: /tokens}\n"),
    ("ports", "base/deployment.yaml", "{name: crm, containerPort: 8081}", "{name: crm, containerPort: 8082}"),
    ("ports", "base/networkpolicy.yaml", "port: 8081", "port: 8082"),
    ("ports", "base/deployment.yaml", "path: /readyz", "path: /livez"),
    ("ports", "base/service.yaml", "targetPort: crm", "targetPort: gate-admin"),
    ("ports", "base/deployment.yaml", '{app.kubernetes.io/name: metrika-gate, metrika-gate/metrics: "true"}', "{app.kubernetes.io/name: metrika-gate}"),
    ("ports", "overlays/sidecar/app.yaml", "containerPort: 3000", "containerPort: 19090"),
    ("ports", "overlays/sidecar/app.yaml", "        - {protocol: TCP, port: 3000}", "        - {protocol: TCP, port: 3001}"),
    ("ports", "overlays/job/job.yaml", "http://127.0.0.1:18080", "http://127.0.0.1:8080"),
    ("ports", "overlays/sidecar/app.yaml", "http://127.0.0.1:18080", "http://localhost:18080"),
    ("harmless", "components/sidecar/pod.yaml", "      initContainers:\n", "      securityContext: {fsGroup: 65532}\n      initContainers:\n"),
    ("harmless", "components/sidecar/pod.yaml", "      initContainers:\n", "      automountServiceAccountToken: false\n      initContainers:\n"),
    ("harmless", "components/sidecar/cronjob.yaml", "          initContainers:\n", "          terminationGracePeriodSeconds: 60\n          initContainers:\n"),
    ("harmless", "components/sidecar/pod.yaml", "          livenessProbe:\n",
     "          readinessProbe:\n            httpGet: {path: /readyz, port: gate-admin}\n          livenessProbe:\n"),
    ("harmless", "components/sidecar/kustomization.yaml", "patches:\n", "resources: [networkpolicy.yaml]\npatches:\n"),
    ("harmless", "components/sidecar/pod.yaml", "containerPort: 19090", "containerPort: 9090"),
    ("alike", "components/sidecar/pod.yaml", "            failureThreshold: 3\n", "            failureThreshold: 4\n"),
    ("alike", "components/sidecar/cronjob.yaml", "requests: {cpu: 20m, memory: 32Mi}", "requests: {cpu: 30m, memory: 32Mi}"),
    ("alike", "components/sidecar/kustomization.yaml", "newTag: 0.1.0", "newTag: 0.0.9"),
    ("alike", "overlays/gateway/gate.yaml", "    scopes: [metrika:read]\n", "    scopes: [metrika:read, metrika:write]\n"),
    ("rolls", "overlays/sidecar/kustomization.yaml", "    files: [gate.yaml]\n", "    files: [gate.yaml]\n    options: {disableNameSuffixHash: true}\n"),
    ("networks", "base/gate.yaml", "match: {listener: crm, source: [10.0.0.0/8,", "match: {listener: crm, source: [10.244.0.0/16,"),
    ("networks", "overlays/sidecar/gate.yaml", '"[::]:19090"', '"0.0.0.0:19090"'),
    ("networks", "overlays/sidecar/gate.yaml", '{name: app, address: "127.0.0.1:18080"}', '{name: app, address: "[::1]:18080"}'),
    ("networks", "base/networkpolicy.yaml", "172.16.0.0/12, ", ""),
    ("networks", "base/networkpolicy.yaml", '            cidr: "::/0"\n            except: ["::1/128", "fc00::/7", "fe80::/10"]\n', '            cidr: "2a02:6b8::/32"\n'),
    ("networks", "base/service.yaml", "  ipFamilyPolicy: PreferDualStack\n", ""),
    ("available", "overlays/gateway/replicas.yaml", "replicas: 2", "replicas: 1"),
    ("available", "overlays/gateway/pdb.yaml", "minAvailable: 1", "minAvailable: 0"),
    ("available", "overlays/gateway/replicas.yaml", "topologyKey: topology.kubernetes.io/zone", "topologyKey: topology.kubernetes.io/region"),
    ("accounts", "overlays/gateway/kustomization.yaml", "components:\n  - ../../components/service-accounts\n", ""),
    ("accounts", "overlays/gateway/gate.yaml", "match: {service_account: [sales/crm]}", "match: {listener: callers}"),
    ("accounts", "overlays/gateway/gate.yaml", "metrika-gate-cluster/token", "metrika-gate-cluster/jwt"),
    ("accounts", "overlays/gateway/gate.yaml", "audience: metrika-gate", "audience: https://kubernetes.default.svc"),
    ("accounts", "components/service-accounts/deployment.yaml", "expirationSeconds: 3600}", "expirationSeconds: 3600, audience: metrika-gate}"),
    ("accounts", "components/service-accounts/deployment.yaml", "defaultMode: 0440", "defaultMode: 0444"),
    ("accounts", "components/service-accounts/egress.yaml", "port: 6443", "port: 8443"),
    ("ports", "overlays/gateway/one-port.yaml", "- {op: remove, path: /spec/template/spec/containers/0/ports/1}\n", ""),
    ("ports", "overlays/gateway/one-ingress-port.yaml", "- {op: remove, path: /spec/ingress/1}\n", ""),
    ("store", "overlays/gateway/gate.acl", " +zscore", ""),
    ("store", "overlays/gateway/gate.acl", "resetchannels ", "resetchannels\n"),
    ("store", "overlays/gateway/valkey.conf", "noeviction", "allkeys-lru"),
    ("store", "overlays/gateway/egress.yaml", "port: 6379", "port: 6380"),
    ("store", "overlays/gateway/replicas.yaml", ", items: [{key: gate, path: gate}]", ""),
    ("operator", "overlays/monitoring/podmonitor.yaml", "scrapeTimeout: 10s", "scrape_timeout: 10s"),
    ("operator", "overlays/monitoring/podmonitor.yaml", "interval: 30s", "interval: 30"),
    ("operator", "overlays/monitoring/podmonitor.yaml", "replacement: metrika-gate", "replacement: gate"),
    ("operator", "overlays/monitoring/podmonitor.yaml", "port: gate-admin", "port: admin"),
    ("operator", "components/sidecar/pod.yaml", '      labels: {metrika-gate/metrics: "true"}\n', ""),
    ("operator", "overlays/monitoring/kustomization.yaml", "namespace: monitoring", "namespace: prometheus"),
]
POLICY = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gate}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


def affected(file):
    """The kustomizations that a file is a part of."""
    place = file.split("/")
    of_components = {"sidecar": ["sidecar", "job"], "service-accounts": ["gateway"]}
    return of_components[place[1]] if place[0] == "components" else {"base": ["base", "gateway"]}.get(place[0], place[1:2])


def survivor(work, check, file, text, becomes):
    """Why the mutant is not noticed as it should be, or nothing."""
    tree, rendered = work / "kubernetes", work / "rendered"
    for folder, source in ((tree, KUBERNETES), (rendered, work / "pristine")):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
    (tree / "components/sidecar/networkpolicy.yaml").write_text(POLICY)
    content = (tree / file).read_text()
    if text not in content:
        return "the text is not there"
    (tree / file).write_text(content.replace(text, becomes, 1))
    kubernetes.KUBERNETES = tree
    folders = kubernetes.kustomizations()
    for name in affected(file):
        kubernetes.render_one(rendered, name, folders[name])
    try:
        kubernetes.CHECKS[check](rendered)
    except AssertionError:
        return None
    return f"{check} does not notice it"


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        kubernetes.render(work / "pristine")
        for check, file, text, becomes in MUTANTS:
            why = survivor(work, check, file, text, becomes)
            if why:
                failed += 1
                print(f"{file}: {text.strip()!r} -> {becomes.strip()!r}: {why}")
    print(f"{len(MUTANTS) - failed} of {len(MUTANTS)} are noticed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
