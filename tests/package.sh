#!/bin/sh
# Installs, upgrades, runs, removes and purges the Debian package in a tree of its own: tests/package.sh PACKAGE.deb
#
# The tree is Debian with systemd, which does not run there: a recorder in the place of systemctl shows what the package asks of
# it. Needs root and mmdebstrap; without them it says so and passes.
set -eu
cd "$(dirname "$0")/.."
package=$(realpath "$1")

skip() { echo "package: skipped, $1"; exit 0; }
fail() {
    echo "package: FAILED, $1" >&2
    [ ! -s "${log:-/dev/null}" ] || tail -n 30 "$log" | sed 's/^/    /' >&2
    exit 1
}

command -v mmdebstrap >/dev/null || skip "mmdebstrap is not installed"
[ "$(id -u)" = 0 ] || skip "it needs root"
[ "$(dpkg --print-architecture)" = "$(dpkg-deb -f "$package" Architecture)" ] || skip "the package is for another architecture"
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/metrika-gate
tar=$cache/bookworm-systemd.tar
if [ ! -f "$tar" ]; then
    mkdir -p "$cache"
    echo "package: making a Debian tree"
    mmdebstrap --quiet --mode=root --format=tar --variant=apt --include=systemd,ca-certificates bookworm "$tar.new" || skip "no packages for the tree"
    mv "$tar.new" "$tar"
fi
# In spaces of its own: nothing is mounted or runs after the end, and all ports are free.
if [ -z "${PACKAGE_INSIDE:-}" ]; then
    unshare --mount --net --pid --fork true 2>/dev/null || skip "it needs namespaces"
    PACKAGE_INSIDE=1 exec unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc "$0" "$package"
fi
ip link set lo up
root=$(mktemp -d "${TMPDIR:-/tmp}/metrika-gate-package.XXXXXX")
mount -t tmpfs tmpfs "$root"
tar -C "$root" -xf "$tar"
mount -t proc proc "$root/proc"
log=$root/tmp/log
asked=$root/tmp/systemctl
mkdir -p "$root/run/systemd/system"
cat >"$root/usr/bin/systemctl" <<'RECORDER'
#!/bin/sh
echo "$*" >>/tmp/systemctl
RECORDER
in_tree() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }
# as_gate COMMAND...: as the user of the service.
as_gate() { in_tree setpriv --reuid=metrika-gate --regid=metrika-gate --clear-groups --no-new-privs -- "$@"; }
dpkg_() { in_tree dpkg --force-confdef --force-confold "$@" >"$log" 2>&1; }
# has PATH MODE OWNER
has() {
    found=$(in_tree stat -c '%a %U' "$1" 2>&1) || :
    [ "$found" = "$2 $3" ] || fail "$1 is $found, not $2 $3"
}

# The version before: another number, another program and another conffile.
version=$(dpkg-deb -f "$package" Version)
old=$root/tmp/old
dpkg-deb -R "$package" "$old"
sed -i "s/^Version: .*/Version: 0.0.1/" "$old/DEBIAN/control"
echo '# of the version before' >>"$old/etc/metrika-gate/gate.yaml"
(cd "$old" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb -Znone -b "$old" "$root/tmp/old.deb" >/dev/null
cp "$package" "$root/tmp/new.deb"

# A first installation.
dpkg_ -i /tmp/old.deb || fail "the package does not install"
in_tree getent passwd metrika-gate >/dev/null || fail "there is no user metrika-gate"
for folder in /var/lib/metrika-gate /var/lib/metrika-gate/tokens /var/lib/metrika-gate/oauth; do has "$folder" 700 metrika-gate; done
has /etc/metrika-gate/gate.yaml 644 root
has /usr/bin/metrika-gate 755 root
! grep -Eq '(^| )(start|restart|enable|preset)( |$)' "$asked" || fail "the package starts something: $(cat "$asked")"
[ -z "$(find "$root/etc/systemd/system" -name '*metrika*')" ] || fail "the package enables something"
said=$(in_tree metrika-gate --version)
case $said in "metrika-gate ${version%-*}"*) ;; *) fail "--version says '$said', the package $version" ;; esac
doc=$root/usr/share/doc/metrika-gate
for file in licences.txt copyright changelog.Debian changelog docs/operations.md examples/reference.yaml; do
    [ -s "$doc/$file" ] || [ -s "$doc/$file.gz" ] || fail "the package lacks $file"
done
for page in metrika-gate metrika-gate-run metrika-gate-token-login; do
    gzip -dc "$root/usr/share/man/man1/$page.1.gz" 2>"$log" | grep -q '^\.TH' || fail "the package lacks the manual page $page"
done
bash -n "$root/usr/share/bash-completion/completions/metrika-gate" || fail "the completions of bash are invalid"
for file in zsh/vendor-completions/_metrika-gate fish/vendor_completions.d/metrika-gate.fish; do
    [ -s "$root/usr/share/$file" ] || fail "the package lacks $file"
done
program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$root/usr/lib/systemd/system/metrika-gate.service")
[ -x "$root$program" ] || fail "the unit starts $program"

# The configuration as it is installed becomes valid with a token of the user, and the service serves.
! as_gate metrika-gate check >"$log" 2>&1 || fail "check accepts a configuration without its token"
grep -q '/var/lib/metrika-gate/tokens/analytics' "$log" || fail "check does not name the token"
as_gate sh -c 'umask 077; echo test-analytics-0001 >/var/lib/metrika-gate/tokens/analytics'
as_gate metrika-gate check >"$log" 2>&1 || fail "check rejects the configuration"
mkdir -m 755 "$root/tmp/fake"
in_tree metrika-gate fake --ca-out /tmp/fake/ca.pem --token test-analytics-0001=shop:read:101 >"$root/tmp/fake.log" 2>&1 &
for _ in $(seq 100); do [ ! -s "$root/tmp/fake/ca.pem" ] || break; sleep 0.1; done
changed=$root/etc/metrika-gate/gate.yaml
echo 'upstream: {ca_file: /tmp/fake/ca.pem, connect_to: "127.0.0.1:8443"}' >>"$changed"
as_gate metrika-gate run >"$root/tmp/run.log" 2>&1 &
in_tree metrika-gate healthcheck --wait 20s >"$log" 2>&1 || { cat "$root/tmp/run.log"; fail "the service does not become ready"; }
curl -fsS --max-time 10 http://127.0.0.1:8080/management/v1/counters >"$log" 2>&1 || fail "the service serves no request"
grep -q '"id":101' "$log" || fail "the service serves something else"

# An upgrade: the changed conffile stays, the new one is beside it, the token stays, and only what runs is restarted.
cp "$changed" "$root/tmp/kept"
: >"$asked"
dpkg_ -i /tmp/new.deb || fail "the package does not upgrade"
cmp -s "$changed" "$root/tmp/kept" || fail "the upgrade changed gate.yaml"
grep -q '^# of the version before' "$root/etc/metrika-gate/gate.yaml.dpkg-dist" && fail "gate.yaml.dpkg-dist is of the version before"
[ -s "$root/etc/metrika-gate/gate.yaml.dpkg-dist" ] || fail "the new gate.yaml is not beside the changed one"
has /var/lib/metrika-gate/tokens/analytics 600 metrika-gate
grep -q 'try-restart.*metrika-gate.service' "$asked" || fail "the upgrade does not restart a running service: $(cat "$asked")"
! grep -Eq '(^| )(start|stop|restart|enable|preset)( |$)' "$asked" || fail "the upgrade does more: $(cat "$asked")"
curl -fsS --max-time 10 -o "$log" http://127.0.0.1:8080/management/v1/counters || fail "the upgrade ended the running service"

# An upgrade with a conffile that nobody changed: the new one.
dpkg_ -P metrika-gate && dpkg_ -i /tmp/old.deb && dpkg_ -i /tmp/new.deb || fail "the package does not install again"
grep -q '^# of the version before' "$changed" && fail "an unchanged gate.yaml is not replaced"
[ ! -e "$root/etc/metrika-gate/gate.yaml.dpkg-dist" ] || fail "an unchanged gate.yaml is kept"

# Removing keeps the configuration; purging removes it and the state, and keeps tokens, which it names.
mkdir -p "$root/var/lib/metrika-gate/state"
echo '{}' >"$root/var/lib/metrika-gate/state/quota.json"
[ -s "$root/var/lib/metrika-gate/tokens/analytics" ] || fail "the first purge removed a token"
: >"$asked"
dpkg_ -r metrika-gate || fail "the package cannot be removed"
[ ! -e "$root/usr/bin/metrika-gate" ] || fail "the program is left"
[ -e "$changed" ] || fail "removing removed gate.yaml"
grep -q 'stop.*metrika-gate.service' "$asked" || fail "removing does not stop the service"
dpkg_ -P metrika-gate || fail "the package cannot be purged"
grep -q 'contains tokens' "$log" || fail "purging does not name the tokens that it keeps"
[ -s "$root/var/lib/metrika-gate/tokens/analytics" ] || fail "purging removed a token"
[ ! -e "$root/var/lib/metrika-gate/state" ] && [ ! -e "$root/etc/metrika-gate" ] || fail "purging leaves configuration or state"

# Without tokens, nothing is left but the user, whose number must not be given to another one.
dpkg_ -i /tmp/new.deb || fail "the package does not install after a purge"
rm "$root/var/lib/metrika-gate/tokens/analytics"
dpkg_ -P metrika-gate || fail "the package cannot be purged"
rm -rf "$root/tmp"
left=$(find "$root" -xdev -mindepth 1 -name '*metrika-gate*' ! -path "$root/proc/*")
[ -z "$left" ] || fail "purging leaves $left"
in_tree dpkg --audit >/dev/null || fail "dpkg --audit"
echo "package: passed, $(basename "$package"), $(du -k "$package" | cut -f 1) kB"
