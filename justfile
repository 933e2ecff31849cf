# The usual verbs. `just` lists them; ./test.sh needs nothing of this and is what decides.

_default:
    @just --list --unsorted

# a gate with an invented Metrica behind it, on 127.0.0.1:8080 and 9090
demo:
    cargo run --release -- demo

# a configuration, read and judged without serving anything
check config="config/gate.yaml":
    cargo run --quiet -- check --config {{ config }}

# the quick half: format, lints, tests
test *args:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo nextest run --locked {{ args }}

# everything that has to hold before a merge
ci:
    ./test.sh

# manifests, rules and the systemd unit
deploy:
    tests/deploy.sh

# the image, built without a registry
image:
    sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME,HOME tests/image.sh

# source as rustfmt wants it
fmt:
    cargo fmt

# accept changed snapshots, after reading them
snapshots:
    INSTA_UPDATE=always cargo nextest run --locked

# licences, bans and sources offline; advisories from the network
deny:
    cargo deny --locked check
