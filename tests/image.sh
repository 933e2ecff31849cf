#!/bin/sh
# Builds the Dockerfile, both stages, without any registry, and runs the image as its users do: by Compose, and by the
# `docker run` line of docs/install.md.
#
# The two base images are made here from Debian packages and put in by argument:
# - the builder is Debian with a C compiler; Rust and the fetched crates of this machine are mounted read-only, so the
#   build inside is offline and shows that a C compiler is all it needs;
# - the runtime is the handful of packages that distroless/cc is made of, unpacked, with no shell and nothing run in it.
# The profile is "dev", since optimising takes minutes: IMAGE_PROFILE=release builds the image that is shipped, and checks its
# size. The list of crates is in the program where cargo-auditable is installed.
#
# IMAGE_OUT=FILE writes the image to FILE, as an archive that `docker load` reads.
#
# Needs root (chroot isolation), buildah and mmdebstrap; without them, or where they do not work at all (a container that
# may not mount), it says so and passes.
set -eu
cd "$(dirname "$0")/.."

skip() { echo "image: skipped, $1"; exit 0; }
fail() { echo "image: FAILED, $1" >&2; exit 1; }

command -v buildah >/dev/null || skip "buildah is not installed"
command -v mmdebstrap >/dev/null || skip "mmdebstrap is not installed"
[ "$(id -u)" = 0 ] || skip "it needs root"
rust=$(rustc --print sysroot)
if [ "$rust" = /usr ] || [ ! -x "$rust/bin/cargo" ]; then skip "the Rust toolchain has no folder of its own to mount"; fi
cargo fetch --locked --quiet

profile=${IMAGE_PROFILE:-dev}
work=$(mktemp -d "${TMPDIR:-/tmp}/metrika-gate-image.XXXXXX")
# Never through a mount that was left behind: the toolchain of this machine is at the other end.
trap 'grep -q " $work/" /proc/mounts || rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# Storage of its own: nothing is seen of the images on this machine, and nothing is left behind.
b() {
    verb=$1
    shift
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$verb" "$@"
}

# base NAME VARIANT PACKAGES: a file system from Debian's packages, made once and kept for the next run.
cache=${XDG_CACHE_HOME:-${HOME:-$work}/.cache}/metrika-gate
mkdir -p "$cache" 2>/dev/null || cache=$work
base() {
    tar=$cache/bookworm-$1.tar
    if [ -f "$tar" ] && [ "$(cat "$tar.packages" 2>/dev/null)" = "$2 $3" ]; then return; fi
    echo "image: making the $1 base"
    mmdebstrap --quiet --mode=root --format=tar --variant="$2" --include="$3" bookworm "$tar.new" ||
        skip "no packages for the $1 base"
    mv "$tar.new" "$tar"
    echo "$2 $3" >"$tar.packages"
}
# base_image NAME CONFIG...: that file system as an image.
base_image() {
    name=$1
    shift
    container=$(b from scratch) &&
        b add --quiet "$container" "$cache/bookworm-$name.tar" / >/dev/null &&
        b config --label base="$name" "$@" "$container" &&
        b commit --quiet "$container" "localhost/metrika-gate-$name" >/dev/null
}
base builder apt gcc,libc6-dev,ca-certificates
base runtime extract base-files,netbase,libc6,libgcc-s1,libstdc++6,ca-certificates
base_image runtime || skip "buildah cannot make an image here"
base_image builder --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env CARGO_HOME=/usr/local/cargo --env CARGO_NET_OFFLINE=true --env CARGO_INCREMENTAL=0 ||
    skip "buildah cannot make an image here"
b run --isolation chroot --volume "$rust:/usr/local/rust:ro" "$container" -- /bin/sh -c 'cargo --version' >"$work/build.log" 2>&1 ||
    { cat "$work/build.log"; skip "buildah cannot run a program here"; }
b rm "$container" >/dev/null

# set -- the options that put cargo-auditable into the builder, or turn it off.
if auditable=$(command -v cargo-auditable); then
    set -- --volume "$auditable:/usr/local/bin/cargo-auditable:ro"
else
    set -- --build-arg AUDITABLE=
fi

echo "image: building the Dockerfile with profile $profile"
b bud --isolation chroot --pull-never --format docker --quiet \
    --volume "$rust:/usr/local/rust:ro" \
    --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry:ro" \
    --build-arg BUILDER_IMAGE=localhost/metrika-gate-builder \
    --build-arg RUNTIME_IMAGE=localhost/metrika-gate-runtime \
    --build-arg CARGO_PROFILE="$profile" \
    --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
    --build-arg REVISION="${IMAGE_REVISION:-}" --build-arg SOURCE_URL="${IMAGE_SOURCE_URL:-}" "$@" \
    --tag localhost/metrika-gate . >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; fail "the Dockerfile does not build"; }

# The program starts as the user of the image, in a file system that has nothing else to run.
container=$(b from --pull-never localhost/metrika-gate)
version=$(b run --isolation chroot "$container" -- /usr/local/bin/metrika-gate --version | head -n 1)
[ -n "$version" ] || fail "the program does not start"
want="metrika-gate $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
[ "$version" = "$want" ] || fail "--version says '$version', Cargo.toml says '$want'"

# What the image tells an engine about itself.
config=$(b inspect --type image localhost/metrika-gate | tr -d ' \n')
for expected in '"User":"65532:65532"' '"8080/tcp":{}' '"9090/tcp":{}' \
    '"Entrypoint":["/usr/local/bin/metrika-gate"]' '"Cmd":["run"]' '"METRIKA_GATE_CONFIG=/etc/metrika-gate/gate.yaml"' \
    '"Test":["CMD","/usr/local/bin/metrika-gate","healthcheck"]' '"org.opencontainers.image.licenses":"Apache-2.0"' \
    "\"org.opencontainers.image.version\":\"${want#metrika-gate }\""; do
    case $config in *"$expected"*) ;; *) fail "the configuration lacks $expected" ;; esac
done

# Owned by root and not writable, with no source, manifest or shell beside it.
root=$(b mount "$container")
[ "$(stat -c '%u:%g %a' "$root/usr/local/bin/metrika-gate")" = "0:0 755" ] || fail "the binary is not root's, mode 755"
for left in /build /bin/sh; do
    [ ! -e "$root$left" ] || fail "the image holds $left"
done
# The licence of the program, and those of all crates.
doc=$root/usr/share/doc/metrika-gate
grep -q 'Apache License' "$doc/LICENSE" || fail "the image lacks LICENSE"
grep -q '^aws-lc-sys .*ISC' "$doc/licences.txt" && grep -q 'Permission to use, copy, modify' "$doc/licences.txt" ||
    fail "the image lacks the texts of the licences"
if [ -n "$auditable" ]; then
    python3 tests/image.py crates "$root/usr/local/bin/metrika-gate" || fail "the program has no list of its crates"
fi

# The compressed size, as a registry stores it.
b push --quiet localhost/metrika-gate "dir:$work/pushed" 2>"$work/build.log" || { cat "$work/build.log"; fail "the image cannot be written"; }
size=$(python3 tests/image.py size "$work/pushed") || fail "the image cannot be measured"
[ "$profile" != release ] || [ "$size" -lt 20000 ] || fail "the image has $size kB compressed; the limit is 20000"
[ -z "${IMAGE_OUT:-}" ] || b push --quiet localhost/metrika-gate "docker-archive:$IMAGE_OUT:metrika-gate:${want#metrika-gate }"

# Podman, where it can run a container: in a network and a mount space of its own, with this storage.
cat >"$work/storage.conf" <<CONF
[storage]
driver = "vfs"
graphroot = "$work/storage"
runroot = "$work/run"
CONF
cat >"$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$work/networks"
CONF
cat >"$work/spaces" <<'SPACES'
ip link set lo up
# crun rejects a tree of cgroups that has both versions.
umount /sys/fs/cgroup/unified 2>/dev/null || true
exec "$@"
SPACES
alone() {
    CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf unshare --mount --net sh "$work/spaces" "$@"
}
ran="not run by podman"
if ! command -v podman >/dev/null || ! command -v podman-compose >/dev/null; then
    echo "image: skipped Compose and docker run: podman or podman-compose is not installed"
elif ! alone podman run --rm localhost/metrika-gate --version >"$work/podman.log" 2>&1; then
    echo "image: skipped Compose and docker run: podman cannot run a container here: $(tail -n 1 "$work/podman.log")"
else
    alone python3 tests/compose.py podman "$work/podman" || fail "the image does not run as the documentation describes"
    ran="run by Compose and docker run"
fi
echo "image: passed, $version, profile $profile, $size kB compressed, $ran"
