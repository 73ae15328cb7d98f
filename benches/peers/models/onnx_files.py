"""A Hugging Face DistilBERT as ONNX: f32, and ONNX Runtime's dynamic int8.

    onnx_files.py DIRECTORY OUT_STEM        writes OUT_STEM.onnx and OUT_STEM.int8.onnx

The plain export (opset 17, eager attention): in int8 it is faster than what onnxruntime.transformers.optimizer makes of it.
Weights int8 per channel, activations u8 while running, embeddings int8 too. ONNX Runtime's and rten's files.
"""
import sys
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import DistilBertForSequenceClassification


class Logits(torch.nn.Module):
    def __init__(self, directory):
        super().__init__()
        self.model = DistilBertForSequenceClassification.from_pretrained(directory, attn_implementation="eager")

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def main():
    directory, stem = sys.argv[1:]
    model = Logits(directory).eval()
    ids, mask = torch.randint(1000, model.model.config.vocab_size, (2, 32)), torch.ones(2, 32, dtype=torch.long)
    mask[1, 20:] = 0
    axes = {0: "texts", 1: "tokens"}
    torch.onnx.export(model, (ids, mask), f"{stem}.onnx", input_names=["input_ids", "attention_mask"], output_names=["logits"],
                      dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "texts"}},
                      opset_version=17, dynamo=False)
    quantize_dynamic(f"{stem}.onnx", f"{stem}.int8.onnx", per_channel=True, weight_type=QuantType.QInt8,
                     extra_options={"MatMulConstBOnly": True})


if __name__ == "__main__":
    main()
