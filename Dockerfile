# The application, for a CUDA card: docker build -t emitdiff:cuda . && docker run --gpus all -p 7860:7860 emitdiff:cuda
# For a processor (1.6 GB of packages in place of 7): docker build --target cpu -t emitdiff:cpu .
# No GPU is needed while building: the torch wheel brings its CUDA libraries, the host brings the driver.

FROM python:3.11-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Any user can run it: files of a user go to HOME, weights from the Hub to HF_HOME (keep it in a volume), and USER names
# one that has no entry in /etc/passwd, which libraries ask for.
ENV HOME=/home/user \
    HF_HOME=/home/user/.cache/huggingface \
    USER=user \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_ANALYTICS_ENABLED=False
RUN install --directory --mode 1777 "$HOME" "$HOME/.cache" "$HF_HOME" "$HOME/.config" && install --directory /app
WORKDIR /app
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]

# torch by itself: its layer, most of the image, is built and pulled again only where its own pin changes.
FROM base AS pins
COPY requirements.txt requirements-gpu.txt ./
RUN grep '^torch==' requirements.txt > torch-cpu.txt \
    && grep -E '^(torch|xformers)==' requirements-gpu.txt > torch-cuda.txt \
    && grep -v '^torch==' requirements.txt > others.txt

FROM base AS cpu-packages
COPY --from=pins /app/torch-cpu.txt ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu --requirement torch-cpu.txt
COPY --from=pins /app/others.txt ./
RUN pip install --requirement others.txt

FROM base AS cuda-packages
COPY --from=pins /app/torch-cuda.txt ./
RUN pip install --requirement torch-cuda.txt
COPY --from=pins /app/others.txt ./
RUN pip install --requirement others.txt

# What changes least comes first. Nobody but root may write to it.
FROM cpu-packages AS cpu
COPY LICENSE ./
COPY checkpoints checkpoints
COPY emitdiff emitdiff
COPY app.py ./
RUN python -m compileall -q emitdiff
USER 1000
CMD ["python", "app.py"]

FROM cuda-packages AS cuda
COPY LICENSE ./
COPY checkpoints checkpoints
COPY emitdiff emitdiff
COPY app.py ./
RUN python -m compileall -q emitdiff
USER 1000
CMD ["python", "app.py"]
