# Locks: exact versions with hashes. torch stands apart, because its build (CPU, CUDA) depends on the platform.
UV ?= uv
LOCK = $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-find-links --quiet \
	--no-emit-package torch --no-emit-package spear-merge --no-emit-package triton \
	$(foreach p,nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft \
	nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
	nvidia-nvshmem-cu13 nvidia-nvtx cuda-bindings cuda-pathfinder cuda-toolkit,--no-emit-package $(p))

lock:
	$(LOCK) --extra dev -o requirements.lock
