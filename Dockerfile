FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY docs/evidence docs/evidence
COPY src src
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir '.[gateway,postgres,redis,prices]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 budgeteer && install -d -o budgeteer /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
EXPOSE 8400
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8400/healthz', timeout=4)"]
# a replica that is stopped books what is under way first
STOPSIGNAL SIGTERM
ENTRYPOINT ["budgeteer"]
CMD ["serve", "--config", "/etc/budgeteer/gateway.toml"]
