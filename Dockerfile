# The image of metrika-gate: one binary, no shell, an unprivileged user by number.
#
#     docker build -t metrika-gate .
#
# Both base images are arguments, so that a mirror or a test can stand in for them. The runtime is named by its digest: the
# same content on every machine, whatever the tag names by then. docs/install.md describes how to update it.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f

FROM ${BUILDER_IMAGE} AS builder
# Any profile of Cargo.toml; "dev" builds in a fraction of the time.
ARG CARGO_PROFILE=release
# "auditable" adds the list of crates to the program, which scanners of images read; empty: a plain build, for tests.
ARG AUDITABLE=auditable
WORKDIR /build
RUN [ -z "${AUDITABLE}" ] || command -v cargo-auditable >/dev/null || cargo install --locked cargo-auditable@0.7.7

# The dependencies alone, over an empty program: this layer stays until a manifest or one of the libraries changes.
# The only thing it needs beside Rust is a C compiler, for the cryptography of aws-lc.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo ${AUDITABLE} build --profile "${CARGO_PROFILE}" --locked --bin metrika-gate

# COPY keeps the age of a file, and cargo compares ages: touched, the source is newer than the empty program.
COPY config config
COPY src src
# The commit that `--version` prints.
ARG REVISION=""
RUN touch src/main.rs src/lib.rs \
 && METRIKA_GATE_COMMIT="${REVISION}" cargo ${AUDITABLE} build --profile "${CARGO_PROFILE}" --locked --bin metrika-gate \
 && cp target/*/metrika-gate /usr/local/bin/metrika-gate

# The texts of the licences of all crates that are linked.
COPY LICENSE ./
COPY release/licences release/licences
RUN release/licences > licences.txt

FROM ${RUNTIME_IMAGE}
ARG SOURCE_URL=""
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="metrika-gate" \
      org.opencontainers.image.description="Authenticating reverse proxy for the Yandex Metrica API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE_URL}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder --chown=0:0 --chmod=0755 /usr/local/bin/metrika-gate /usr/local/bin/metrika-gate
COPY --from=builder --chown=0:0 --chmod=0644 /build/licences.txt /usr/share/doc/metrika-gate/licences.txt
COPY --chown=0:0 --chmod=0644 LICENSE /usr/share/doc/metrika-gate/LICENSE

# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# The data and the admin listener. Both are on loopback unless the configuration says otherwise.
EXPOSE 8080 9090
# `run` and `healthcheck` read this file; another one is `-e METRIKA_GATE_CONFIG=FILE`, for both.
ENV METRIKA_GATE_CONFIG=/etc/metrika-gate/gate.yaml
# There is no shell and no curl: the program reads admin.address in the configuration and requests its own readiness.
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/metrika-gate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/metrika-gate"]
CMD ["run"]
