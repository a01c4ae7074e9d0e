# docker build -f tpu/docker/cuda13.Dockerfile -t jaxalign:cuda13 .
FROM python:3.12-slim
# MuJoCo's renderer without a display
RUN apt-get update && apt-get install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri && rm -rf /var/lib/apt/lists/*
WORKDIR /jaxalign
COPY . .
RUN pip install --no-cache-dir -e ".[cuda13]"
ENV MUJOCO_GL=egl
CMD ["jaxalign", "train"]
