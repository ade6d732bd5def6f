# One image for each service, from one file: targets `profile_service` and `ws_gateway`.
FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DUET_LOG_FORMAT=json \
    DUET_DATA_DIR=/data \
    DUET_SERVICE_SECRET_FILE=/secret/service_secret
WORKDIR /app
COPY requirements.lock .
RUN pip install --no-cache-dir --no-input --disable-pip-version-check --progress-bar=off \
      --root-user-action=ignore --require-hashes --no-deps --requirement requirements.lock \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin duet
# A new named volume takes over the owner and mode of the folder it is mounted on.
RUN install --directory --owner=duet --group=duet --mode=0700 /data /secret
STOPSIGNAL SIGTERM
COPY shared shared

FROM base AS profile_service
COPY profile_service profile_service
COPY clients/web clients/web
RUN python -m compileall -q shared profile_service && chmod -R a+rX .
USER duet
ENV DUET_PROFILE_HOST=0.0.0.0 DUET_PROFILE_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-IS", "-c", \
  "import http.client as http; c = http.HTTPConnection('127.0.0.1', 8000, timeout=3); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["python", "-m", "profile_service"]

FROM base AS ws_gateway
COPY ws_gateway ws_gateway
RUN python -m compileall -q shared ws_gateway && chmod -R a+rX .
USER duet
ENV DUET_GATEWAY_HOST=0.0.0.0 DUET_GATEWAY_PORT=8765
EXPOSE 8765
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-IS", "-c", \
  "import http.client as http; c = http.HTTPConnection('127.0.0.1', 8765, timeout=3); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["python", "-m", "ws_gateway"]
