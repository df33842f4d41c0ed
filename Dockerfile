# One small image per service: `docker build --target capture|aggregator|api|redis .`
# All that is installed lies in wheelhouse/, which `podloxx-launch images wheelhouse` fills (`images build` does both),
# so a build needs no network: the tests build with --network=none.
ARG BASE=debian:bookworm-slim

# --- Python, as Debian has it

FROM ${BASE} AS python
ARG TARGETARCH
RUN --mount=type=bind,source=wheelhouse/${TARGETARCH}/debs/python,target=/debs \
    --mount=type=bind,source=scripts/install-debs,target=/install-debs \
    sh /install-debs /debs
# One thread of linear algebra, of which there is none: else NumPy keeps memory for one a processor.
# The root file system is read-only, so nothing is compiled at run time; it was at build time.
ENV OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

# --- What each service needs, and no more; podloxx itself, the same for all

FROM python AS capture-packages
ARG TARGETARCH
RUN --mount=type=bind,source=wheelhouse/${TARGETARCH}/wheels,target=/wheels \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/capture.txt,target=/wanted \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/debs/pip,target=/pip \
    --mount=type=bind,source=scripts/install-wheels,target=/install-wheels \
    sh /install-wheels --requirement /wanted

FROM python AS aggregator-packages
ARG TARGETARCH
RUN --mount=type=bind,source=wheelhouse/${TARGETARCH}/wheels,target=/wheels \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/aggregator.txt,target=/wanted \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/debs/pip,target=/pip \
    --mount=type=bind,source=scripts/install-wheels,target=/install-wheels \
    sh /install-wheels --requirement /wanted

FROM python AS api-packages
ARG TARGETARCH
RUN --mount=type=bind,source=wheelhouse/${TARGETARCH}/wheels,target=/wheels \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/api.txt,target=/wanted \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/debs/pip,target=/pip \
    --mount=type=bind,source=scripts/install-wheels,target=/install-wheels \
    sh /install-wheels --requirement /wanted

FROM python AS podloxx
ARG TARGETARCH
RUN --mount=type=bind,source=wheelhouse/${TARGETARCH}/own,target=/wheels \
    --mount=type=bind,source=wheelhouse/${TARGETARCH}/debs/pip,target=/pip \
    --mount=type=bind,source=scripts/install-wheels,target=/install-wheels \
    sh /install-wheels --no-deps podloxx

# --- The images

FROM python AS capture
COPY --from=capture-packages /packages /usr/local/lib/python3.11/dist-packages
COPY --from=podloxx /packages /usr/local/lib/python3.11/dist-packages
ARG VERSION=0
LABEL org.opencontainers.image.title="podloxx capture" org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.licenses=Apache-2.0
# Root without its rights: a pod cannot give capabilities to another user. Drop ALL, add NET_RAW, BPF and PERFMON.
USER 0:0
ENTRYPOINT ["python3", "-P", "-m", "services.capture"]

FROM python AS aggregator
COPY --from=aggregator-packages /packages /usr/local/lib/python3.11/dist-packages
COPY --from=podloxx /packages /usr/local/lib/python3.11/dist-packages
ARG VERSION=0
LABEL org.opencontainers.image.title="podloxx aggregator" org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
ENTRYPOINT ["python3", "-P", "-m", "services.aggregator"]

FROM python AS api
COPY --from=api-packages /packages /usr/local/lib/python3.11/dist-packages
COPY --from=podloxx /packages /usr/local/lib/python3.11/dist-packages
ARG VERSION=0
LABEL org.opencontainers.image.title="podloxx api" org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
EXPOSE 1337
ENTRYPOINT ["python3", "-P", "-m", "services.api"]

FROM ${BASE} AS redis
ARG TARGETARCH
RUN --mount=type=bind,source=wheelhouse/${TARGETARCH}/debs/redis,target=/debs \
    --mount=type=bind,source=scripts/install-debs,target=/install-debs \
    sh /install-debs /debs
ARG VERSION=0
LABEL org.opencontainers.image.title="podloxx redis" org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.licenses=BSD-3-Clause
USER 65532:65532
WORKDIR /tmp
EXPOSE 6379
ENTRYPOINT ["redis-server"]
# Memory only, and full rather than forgetful. It answers strangers only once it is given users: --aclfile FILE.
CMD ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
