# The image of passrelay: every role in one, `passrelay` is its entry point. docker-compose.yml builds it; alone:
#   docker build -t passrelay:local .
# Wheels in a folder `wheelhouse` beside this file are used as if they were in the package index.
FROM python:3.13.7-slim-trixie AS build
WORKDIR /src
COPY . .
# For an index of your own; PIP_NO_INDEX=1 takes the folder alone.
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
RUN python -m venv --without-pip /opt/passrelay \
    && python -m pip --python /opt/passrelay install --quiet --no-cache-dir --find-links wheelhouse \
        --constraint constraints.txt '.[samba]'

FROM python:3.13.7-slim-trixie
COPY --from=build /opt/passrelay /opt/passrelay
# uid 10001: give it the private files of consumer, watch and operator. A producer beside Samba needs `--user 0`.
RUN useradd --uid 10001 --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin passrelay \
    && install -d -m 0700 /var/lib/passrelay
ENV PATH=/opt/passrelay/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# What is freed is given back and overwritten at once, so that no password of a past event stays: docs/security.md.
ENV PYTHONMALLOC=malloc GLIBC_TUNABLES=glibc.malloc.tcache_count=0
USER 10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["passrelay"]
