# The image of metrika-gate: one binary, no shell, an unprivileged user by number.
# Both base images are arguments, so that a mirror or a test can stand in for them.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER_IMAGE} AS builder
# Any profile of Cargo.toml; "dev" builds in a fraction of the time.
ARG CARGO_PROFILE=release
WORKDIR /build

# The dependencies alone, over an empty program: this layer stays until a manifest or one of the libraries changes.
# The only thing it needs beside Rust is a C compiler, for the cryptography of aws-lc.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --profile "${CARGO_PROFILE}" --locked --bin metrika-gate

# COPY keeps the age of a file, and cargo compares ages: touched, the source is newer than the empty program.
COPY config config
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo build --profile "${CARGO_PROFILE}" --locked --bin metrika-gate \
 && cp target/*/metrika-gate /usr/local/bin/metrika-gate

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

# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# The data and the admin listener. Both are on loopback unless the configuration says otherwise.
EXPOSE 8080 9090
# There is no shell and no curl: the binary asks its own admin listener.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/metrika-gate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/metrika-gate"]
CMD ["run", "--config", "/etc/metrika-gate/gate.yaml"]
