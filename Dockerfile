# Two stages: what installs things stays in the first.
FROM python:3.11-slim AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
COPY requirements requirements
# The environment that ships has no pip; the one that builds installs into it.
RUN python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/cronrunner \
    && /opt/build/bin/pip install --require-hashes --requirement requirements/build.txt \
    && /opt/build/bin/pip --python /opt/cronrunner/bin/python install --require-hashes --requirement requirements/runtime.txt

COPY pyproject.toml ./
COPY cronrunner cronrunner
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/cronrunner/bin/python install --no-deps --no-index dist/*.whl


FROM python:3.11-slim

# Everything is compiled already, and the root file system may be read-only.
ENV PATH=/opt/cronrunner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN groupadd --gid 10001 cronrunner \
    && useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin cronrunner

COPY --from=build /opt/cronrunner /opt/cronrunner

# Your own tenants.yaml and jobs/ go here, copied or mounted. A ledger in a file belongs on a volume
# mounted at /app/var: what is written to the container itself is gone with it.
WORKDIR /app
COPY tenants.yaml ./
COPY jobs jobs
RUN install --directory --owner=10001 --group=10001 var

USER 10001:10001
ENTRYPOINT ["cronrunner"]
CMD ["run"]
