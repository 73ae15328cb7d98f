"""An ONNX file as OpenVINO's: f32, and int8 by NNCF.

    openvino_files.py MODEL.onnx OUT_STEM     writes OUT_STEM.xml, .bin and OUT_STEM.int8.xml, .bin

Static quantization as NNCF does it for transformers (SmoothQuant, per-channel weights, preset MIXED), calibrated on seeded texts
of many lengths.
"""
import sys

import nncf
import numpy as np
import openvino


def main():
    source, stem = sys.argv[1:]
    model = openvino.convert_model(source)
    openvino.save_model(model, f"{stem}.xml", compress_to_fp16=False)
    random = np.random.default_rng(0)
    lengths = random.integers(16, 128, 24)
    texts = [random.integers(1000, 30000, (2, length)) for length in lengths]
    data = nncf.Dataset(texts, lambda ids: {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    small = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED,
                          subset_size=len(texts), fast_bias_correction=True)
    openvino.save_model(small, f"{stem}.int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
