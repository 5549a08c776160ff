"""Which extra of this package brings a module, for messages that say what to install."""

EXTRAS = {
    "PIL": "torch",
    "accelerate": "torch",
    "array_record": "rlds",
    "av": "video",
    "cv2": "torch",
    "datasets": "table",
    "google_crc32c": "rlds",
    "gym_pusht": "pusht",
    "gymnasium": "gym",
    "h5py": "torch",
    "hdf5plugin": "torch",
    "lerobot": "lerobot",
    "lpips": "evaluate",
    "matplotlib": "evaluate",
    "onnx": "export",
    "onnxruntime": "onnx",
    "peft": "lora",
    "prometheus_client": "serve",
    "pyarrow": "torch",
    "pygame": "play",
    "ray": "ray",
    "starlette": "serve",
    "tensorboard": "train",
    "tensorflow_datasets": "rlds",
    "torch": "torch",
    "torchao": "int8",
    "transformers": "torch",
    "uvicorn": "serve",
    "wandb": "wandb",
    "websockets": "serve",
    "xxhash": "torch",
}
"""The extra of this package that brings a module."""


__all__ = ["EXTRAS"]
