# The image of Brücke. The bases are arguments, for who mirrors them:
#
#   docker build --tag brucke .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/brucke --push .
#
# `make image` builds the last stage without a daemon, from a binary that is there
# already. That stage is the one that is tried (tests/image); the stages before it,
# and arm64, are not: no daemon was there.

# Debian 12, as the runtime: a binary runs only where glibc is not older.
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
# glibc, libgcc and CA certificates; no shell.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS chef
ARG CARGO_CHEF_VERSION=0.1.78
RUN cargo install cargo-chef --locked --version ${CARGO_CHEF_VERSION}
WORKDIR /brucke

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /brucke/recipe.json recipe.json
# A layer of its own: it is built anew only when Cargo.lock changes.
RUN cargo chef cook --release --locked --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --bin brucke && install --strip -D target/release/brucke /out/brucke

FROM ${RUNTIME_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
# Where the source is, as a URL.
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Brücke" \
      org.opencontainers.image.description="Carries Kafka topics to browsers and services over WebSocket" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=builder /out/brucke /usr/local/bin/brucke
# By number, so that `runAsNonRoot` can see it.
USER 65532:65532
EXPOSE 8080 9090
# On SIGTERM it drains by itself; give it longer than its drain to end.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/brucke"]
CMD ["serve"]
