# syntax=docker/dockerfile:1
# Two stages: a static binary is built, then put into an empty image with CA certificates and a user that is not root.

FROM rust:1-bookworm AS build
# What OpenSSL needs beyond the image: perl with its modules and make.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN src/install/static.sh \
    && install -D "target/$(uname -m)-unknown-linux-gnu/release/audiohook-collector" /image/usr/local/bin/audiohook-collector \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -D -m 0644 LICENSE /image/usr/local/share/doc/audiohook-collector/LICENSE \
    && printf 'collector:x:65532:65532::/data:/sbin/nologin\n' > /image/etc/passwd \
    && printf 'collector:x:65532:\n' > /image/etc/group \
    && printf '127.0.0.1 localhost\n::1 localhost\n' > /image/etc/hosts \
    && install -d -m 1777 /image/tmp \
    && install -d -m 0750 /volume/data \
    && install -m 0644 topics.json /volume/data/topics.json

FROM scratch
LABEL org.opencontainers.image.title="audiohook-collector" \
      org.opencontainers.image.description="Collects Genesys Cloud AudioHook operational events: every one, once" \
      org.opencontainers.image.licenses="MIT"
# A folder's content is copied, and not its own mode: so /tmp and /data are copied as content of the folder above them.
COPY --from=build --chown=0:0 /image/ /
COPY --from=build --chown=65532:65532 /volume/ /
USER 65532:65532
# The events, the state and a topics.json of one's own live here; all else may be read-only.
WORKDIR /data
VOLUME /data
EXPOSE 8077
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=15s --retries=3 \
    CMD ["/usr/local/bin/audiohook-collector", "health"]
ENTRYPOINT ["/usr/local/bin/audiohook-collector"]
