# esexec with its example: executor, worker or any other command of the tool.
FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY esexec esexec
COPY projections projections
RUN pip install --no-cache-dir .
COPY examples examples

# The user's task modules are found from here.
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
RUN useradd --system --home-dir /app esexec && mkdir -p /app/.esexec && chown esexec /app/.esexec
USER esexec

CMD ["esexec", "--help"]
