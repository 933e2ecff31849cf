#!/bin/sh
# Checks everything under deploy/: one line for each check, a sum at the end.
#
# METRIKA_GATE_BIN  a built metrika-gate; with it, each gate.yaml in the manifests must pass `metrika-gate check`.
# A tool that is not installed turns its checks into a line that says so; test.sh installs them all.
set -eu
cd "$(dirname "$0")/.."

venv=$PWD/.tools/venv/bin
[ -d "$venv" ] && PATH=$venv:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/metrika-gate-deploy.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# check NAME COMMAND...: silent when it passes, its output indented when it does not.
check() {
    name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok      $name"
        passed=$((passed + 1))
    else
        echo "FAILED  $name"
        sed 's/^/        /' "$work/out"
        failed=$((failed + 1))
    fi
}
# have TOOL WHAT: is the tool there? If not, says what is not checked.
have() { command -v "$1" >/dev/null || { echo "skipped $2: $1 is not installed"; return 1; }; }
# silent COMMAND...: for tools that print a warning and exit 0.
silent() {
    "$@" >"$work/silent" 2>&1 || { cat "$work/silent"; return 1; }
    cat "$work/silent"
    [ ! -s "$work/silent" ]
}
own() { python3 tests/deploy.py "$@"; }

if have kubernetes-validate "the kinds of Kubernetes"; then
    for file in sidecar gateway valkey; do
        check "kubernetes: $file.yaml keeps to the schema" \
            silent kubernetes-validate --strict --quiet "deploy/kubernetes/$file.yaml"
    done
    if have kubectl "building the kustomization" && kubectl kustomize --help >/dev/null 2>&1; then
        rendered() {
            kubectl kustomize deploy/kubernetes >"$work/rendered.yaml" &&
                silent kubernetes-validate --strict --quiet "$work/rendered.yaml"
        }
        check "kubernetes: the kustomization builds" rendered
    fi
fi

if python3 -c 'import yaml' 2>/dev/null; then
    check "kubernetes: the grace period is longer than the drain" own grace
    check "kubernetes: the gate is confined, and only it holds tokens" own hardening
    check "kubernetes: ports, probes and policies agree with gate.yaml" own ports
    check "kubernetes: the gates and the quota store agree, and its user has the rights of the script" own store
    check "kubernetes: the kustomization names what exists" own kustomization
    check "prometheus: every alert has a case and knows its labels" own rules
    if [ -z "${METRIKA_GATE_BIN:-}" ]; then
        echo "skipped gate.yaml of the manifests: METRIKA_GATE_BIN is not set"
    elif have openssl "gate.yaml of the manifests"; then
        own gate_yaml "$work/gates"
        for folder in "$work"/gates/*; do
            check "kubernetes: gate.yaml of ${folder##*/} is accepted" \
                "$METRIKA_GATE_BIN" check --config "$folder/gate.yaml"
        done
    fi
else
    echo "skipped own checks: python3 has no yaml"
fi

if have promtool "the rules of Prometheus"; then
    check "prometheus: rules.yaml is well formed" promtool check rules deploy/prometheus/rules.yaml
    check "prometheus: rules_test.yaml passes" promtool test rules deploy/prometheus/rules_test.yaml
    scrape() { own scrape "$work/scrape.yaml" && promtool check config "$work/scrape.yaml"; }
    check "prometheus: scrape.yaml is a configuration" scrape
fi

if have systemd-analyze "the systemd unit"; then
    # verify wants the program to exist; offline security has no need of it.
    unit=$work/metrika-gate.service
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' deploy/systemd/metrika-gate.service >"$unit"
    check "systemd: the unit has no unknown key" silent systemd-analyze verify "$unit"
    check "systemd: the unit is confined" systemd-analyze security --no-pager --offline=true --threshold=20 "$unit"
fi

echo "deploy: $passed passed, $failed failed"
[ "$failed" = 0 ]
