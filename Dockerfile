# The application on a GPU host: docker build -t emitdiff . && docker run --gpus all -p 7860:7860 emitdiff
# No GPU is needed while building: the torch wheel brings its CUDA libraries, the host brings the driver.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_ANALYTICS_ENABLED=False

RUN useradd --create-home --uid 1000 user && install --directory --owner user --group user /home/user/app
WORKDIR /home/user/app

# Installed before the sources are copied, so that a change of code does not install again.
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt

COPY --chown=1000:1000 . .
USER 1000

# Weights from the Hub are kept in a volume: docker run -v emitdiff-weights:/home/user/.cache/huggingface ...
RUN mkdir -p /home/user/.cache/huggingface

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4)"]
CMD ["python", "app.py"]
