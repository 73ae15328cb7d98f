"""Who is measured: each a runtime, a network and a precision."""
from dataclasses import dataclass
from pathlib import Path

# How far logits may lie from PyTorch's f32, as a share of the largest reference logit. Floats differ by the order of their
# sums alone. int8 rounds every activation and weight: on random weights that comes to 1 to 4 %, and to 10 % with NNCF's fixed
# ranges. A network that lacks one feed-forward block is 32 % off, one that lacks a layer 36 %.
BOUNDS = {"f32": 5e-4, "int8": 0.16}


@dataclass(frozen=True)
class Variant:
    name: str  # what --only takes
    runtime: str  # what tables say
    precision: str
    network: str  # a directory that models/base.py makes
    file: str  # the file that it opens, below the models' folder
    worker: str  # what runs it: "limbeck", a package in workers/, or an environment and a runtime of python.py as "main:torch-int8"

    @property
    def ours(self):
        return self.worker == "limbeck"

    @property
    def environment(self):
        """The environment of requirements/, or None for a program."""
        return self.worker.partition(":")[0] if ":" in self.worker else None

    def bytes(self, models):
        """Size of the model's file or files."""
        path = models / self.file
        if path.is_dir():
            path = path / "model.safetensors"
        files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        return sum(file.stat().st_size for file in files)

    def command(self, tools, models, threads):
        """What to start; `tools` knows where programs are."""
        model = models / self.file
        if self.environment:
            python = tools.python(self.environment)
            return [python, Path(__file__).parent.parent / "workers" / "python.py", self.worker.partition(":")[2], model, threads]
        return [tools.program(self.worker), model, threads]


ALL = [
    Variant("limbeck-f32", "limbeck", "f32", "dense", "limbeck/dense.limbeck", "limbeck"),
    Variant("limbeck-int8", "limbeck", "int8", "dense", "limbeck/dense.int8.limbeck", "limbeck"),
    Variant("limbeck-pruned", "limbeck, 60 % of heads and FFN units deleted", "int8", "pruned", "limbeck/pruned.int8.limbeck", "limbeck"),
    Variant("limbeck-blocks", "limbeck, 80 % zero in blocks of 16 × 4", "int8", "blocks", "limbeck/blocks.int8.limbeck", "limbeck"),
    Variant("onnxruntime-f32", "ONNX Runtime", "f32", "dense", "onnx/dense.onnx", "main:onnxruntime"),
    Variant("onnxruntime-int8", "ONNX Runtime, dynamic", "int8", "dense", "onnx/dense.int8.onnx", "main:onnxruntime"),
    Variant("openvino-f32", "OpenVINO", "f32", "dense", "openvino/dense.xml", "openvino:openvino"),
    Variant("openvino-int8", "OpenVINO, NNCF static", "int8", "dense", "openvino/dense.int8.xml", "openvino:openvino"),
    Variant("pytorch-int8", "PyTorch, dynamic", "int8", "dense", "dense", "main:torch-int8"),
    Variant("candle-f32", "candle", "f32", "dense", "dense", "candle"),
    Variant("rten-int8", "rten, dynamic", "int8", "dense", "onnx/dense.int8.onnx", "rten"),
    Variant("deepsparse-int8", "DeepSparse", "int8", "dense", "deepsparse/dense.int8.onnx", "deepsparse:deepsparse"),
    Variant("deepsparse-stripes", "DeepSparse, 80 % zero in blocks of 4", "int8", "stripes", "deepsparse/stripes.int8.onnx", "deepsparse:deepsparse"),
]
