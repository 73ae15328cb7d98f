"""The model files of every variant, all from the same weights.

    base.py ─► dense/ pruned/ blocks/ stripes/ ─┬─ limbeck export ─► limbeck/*.limbeck
                                                ├─ onnx_files.py ──► onnx/dense.onnx, .int8.onnx ─► openvino/dense.xml, .int8.xml
                                                └─ deepsparse_files.py ─► deepsparse/dense.int8.onnx, stripes.int8.onnx
"""
import json, shutil

from harness import workloads
from harness.build import HERE, digest

SCRIPTS = HERE / "models"
ALONE = {"OMP_NUM_THREADS": "1"}  # threads that wait by spinning take minutes for seconds of work on a busy machine


class Files:
    """Makes what is asked for; `folder` holds everything of one source (a seed, or a given model)."""

    def __init__(self, tools, seed, model):
        self.tools, self.seed, self.model = tools, seed, model and model.resolve()
        source = digest(*(path for path in sorted(model.iterdir()) if path.is_file())) if model else f"seed-{seed}"
        self.folder = tools.cache / "models" / source

    def base(self):
        """The Hugging Face directories; returns the key of what they were made from."""
        scripts = [SCRIPTS / "base.py", SCRIPTS / "vocabulary.py", HERE / "harness" / "workloads.py"]
        key = digest(*scripts, self.folder.name)
        size = json.loads((self.model / "config.json").read_text())["vocab_size"] if self.model else 30522

        def make():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            texts = self.folder / "texts.json"
            texts.write_text(json.dumps(workloads.texts(size)))
            source = ["--model", self.model] if self.model else ["--seed", self.seed]
            self.tools.call(self.tools.python("main"), scripts[0], "--texts", texts, "--out", self.folder, *source, **ALONE)

        self.tools.once(self.folder / "base.stamp", key, "the networks", make)
        return key

    def make(self, variant):
        """Makes the file that a variant opens."""
        key, target = self.base(), self.folder / variant.file
        kind = variant.file.partition("/")[0]
        target.parent.mkdir(exist_ok=True)
        if kind == "limbeck":
            self._limbeck(variant, key, target)
        elif kind == "onnx":
            self._script("onnx_files.py", "main", key, self.folder / "dense", self.folder / "onnx" / "dense")
        elif kind == "openvino":
            (self.folder / "onnx").mkdir(exist_ok=True)
            self._script("onnx_files.py", "main", key, self.folder / "dense", self.folder / "onnx" / "dense")
            self._script("openvino_files.py", "openvino", key, self.folder / "onnx" / "dense.onnx", self.folder / "openvino" / "dense")
        elif kind == "deepsparse":
            self._script("deepsparse_files.py", "main", key, self.folder / variant.network, target)

    def _script(self, name, environment, key, source, target):
        """Runs a script of models/ in an environment: source, target."""
        key = digest(key, SCRIPTS / name, HERE / "requirements" / f"{environment}.txt")
        python = self.tools.python(environment)
        stamp = target.with_name(f"{target.name}.{name}.stamp")
        self.tools.once(stamp, key, target.relative_to(self.folder),
                        lambda: self.tools.call(python, SCRIPTS / name, source, target, **ALONE))

    def _limbeck(self, variant, key, target):
        limbeck = self.tools.limbeck()
        layout = "limbeck-int8" if variant.precision == "int8" else "limbeck"

        def make():
            target.unlink(missing_ok=True)
            self.tools.call(limbeck, "export", "--format", layout, self.folder / variant.network, target)

        self.tools.once(target.with_suffix(".stamp"), digest(key, limbeck), target.relative_to(self.folder), make)
