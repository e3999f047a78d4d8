# The lab in a container: its data in the volume /lab, its pages on port 8501, no root.
#   docker build -t symmetry-lab .
#   docker run --init -p 127.0.0.1:8501:8501 -v symmetry-lab:/lab symmetry-lab
# The log shows the link to open. BASE is any image with Python 3.11 or newer; TORCH_INDEX is where torch comes from.
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG TORCH_INDEX=
ENV PATH=/opt/symlab/bin:$PATH PYTHONUNBUFFERED=1 SYMLAB_LAB=/lab
RUN useradd --uid 1000 --create-home lab && install -d -o lab -g lab /lab
WORKDIR /opt/source

# The dependencies change less often than the source, so they are a layer of their own.
COPY pyproject.toml constraints.txt README.md ./
RUN python3 -m venv /opt/symlab \
 && pip install --no-cache-dir --upgrade 'pip>=25.1' \
 && if [ -n "$TORCH_INDEX" ]; then \
      pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" --no-deps torch; \
    fi \
 && pip install --no-cache-dir --constraint constraints.txt .
COPY symcore symcore
COPY jobs jobs
COPY app app
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# Stored beside every number: docker build --build-arg COMMIT=$(git rev-parse HEAD)
ARG COMMIT=
ENV SYMLAB_COMMIT=$COMMIT
USER lab
WORKDIR /home/lab
VOLUME /lab
EXPOSE 8501
# The body says whether the store answers, its writer writes and the dispatcher looks after its workers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python3", "-c", "\
import json, sys, urllib.request\n\
with urllib.request.urlopen('http://127.0.0.1:8501/api/ready', timeout=4) as answer:\n\
    sys.exit(json.load(answer)['ready'] is not True)"]
# The exec form, so that SIGTERM reaches the server and running work writes its checkpoints.
CMD ["symlab", "up", "--host", "0.0.0.0", "--port", "8501", "--no-browser"]
