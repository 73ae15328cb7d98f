"""A Hugging Face DistilBERT as the int8 ONNX graph that DeepSparse has kernels for.

    deepsparse_files.py DIRECTORY OUT.onnx

DeepSparse knows the operations of opset 13 (no LayerNormalization, no Gelu: both are spelt out) and int8 in the form in which
SparseML leaves it: QuantizeLinear, MatMulInteger, an int32 bias, a cast and one scale. Activations are u8 with fixed ranges,
taken from seeded random texts; weights are s8 with one scale a matrix; the products of attention are int8 too. Zero weights
stay zero, which is what its sparse kernels look for.
"""
import math, sys

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import DistilBertForSequenceClassification


class Ranges:
    """The least and largest value that enters and leaves every linear layer, zero included."""

    def __init__(self, model):
        self.found = {}
        hooks = [module.register_forward_hook(self.hook(name)) for name, module in model.named_modules()
                 if isinstance(module, torch.nn.Linear)]
        torch.manual_seed(1)
        with torch.inference_mode():
            for length in (24, 64, 110):
                model(torch.randint(1000, model.config.vocab_size, (4, length)))
        for hook in hooks:
            hook.remove()

    def hook(self, name):
        def see(_, inputs, output):
            for key, tensor in ((name, inputs[0]), (name + ":out", output)):
                low, high = self.found.get(key, (0.0, 0.0))
                self.found[key] = (min(low, tensor.min().item()), max(high, tensor.max().item()))
        return see

    def __getitem__(self, key):
        return self.found[key]


class Graph:
    """Nodes and constants as they come; every method returns the name of a value."""

    def __init__(self):
        self.nodes, self.constants, self.quantized = [], {}, {}

    def node(self, operation, *inputs, output=None, **attributes):
        output = output or f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value, dtype=np.float32):
        array = np.asarray(value, dtype)
        key = f"c{len(self.constants)}" if array.size > 16 else f"{array.dtype}_{array.shape}_{array.tolist()}"
        self.constants.setdefault(key, array)
        return key

    def quantize(self, value, limits):
        """The value as u8: its name, scale and zero point. The same value is quantized once."""
        low, high = limits
        scale = max((high - low) / 255, 1e-8)
        zero = round(-low / scale)
        if (value, scale, zero) not in self.quantized:
            zero_name = self.constant(zero, np.uint8)
            name = self.node("QuantizeLinear", value, self.constant(scale), zero_name)
            self.quantized[value, scale, zero] = name, scale, zero_name
        return self.quantized[value, scale, zero]

    def rescale(self, sums, scale):
        return self.node("Mul", self.node("Cast", sums, to=TensorProto.FLOAT), self.constant(scale))

    def linear(self, value, layer, limits):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        step = float(np.abs(weight).max()) / 127
        name, scale, zero = self.quantize(value, limits)
        matrix = self.constant(np.round(weight / step).clip(-127, 127).T, np.int8)
        sums = self.node("MatMulInteger", name, matrix, zero, self.constant(0, np.int8))
        sums = self.node("Add", sums, self.constant(np.round(bias / (scale * step)), np.int32))
        return self.rescale(sums, scale * step)

    def product(self, left, right, left_limits, right_limits):
        a, a_scale, a_zero = self.quantize(left, left_limits)
        b, b_scale, b_zero = self.quantize(right, right_limits)
        return self.rescale(self.node("MatMulInteger", a, b, a_zero, b_zero), a_scale * b_scale)

    def norm(self, value, layer):
        middle = self.node("Sub", value, self.node("ReduceMean", value, axes=[-1], keepdims=1))
        variance = self.node("ReduceMean", self.node("Pow", middle, self.constant(2)), axes=[-1], keepdims=1)
        deviation = self.node("Sqrt", self.node("Add", variance, self.constant(layer.eps)))
        scaled = self.node("Mul", self.node("Div", middle, deviation), self.constant(layer.weight.detach()))
        return self.node("Add", scaled, self.constant(layer.bias.detach()))

    def gelu(self, value):
        erf = self.node("Erf", self.node("Div", value, self.constant(math.sqrt(2))))
        return self.node("Mul", self.node("Mul", value, self.node("Add", erf, self.constant(1))), self.constant(0.5))

    def dense(self, value, layer, output=None):
        """A layer of the head, in f32."""
        weight, bias = self.constant(layer.weight.detach()), self.constant(layer.bias.detach())
        return self.node("Gemm", value, weight, bias, output=output, transB=1)


def embed(g, embeddings):
    table, positions = embeddings.word_embeddings.weight.detach().numpy(), embeddings.position_embeddings.weight.detach()
    step = float(np.abs(table).max()) / 127
    rows = g.node("Gather", g.constant(np.round(table / step) + 128, np.uint8), "input_ids")
    words = g.node("DequantizeLinear", rows, g.constant(step), g.constant(128, np.uint8))
    tokens = g.node("Gather", g.node("Shape", "input_ids"), g.constant([1], np.int64), axis=0)
    places = g.node("Slice", g.constant(positions[None]), g.constant([0], np.int64), tokens, g.constant([1], np.int64))
    return g.norm(g.node("Add", words, places), embeddings.LayerNorm)


def attend(g, x, mask, attention, name, ranges):
    """Multi-head attention without its residual."""
    heads, size = attention.n_heads, attention.dim // attention.n_heads
    split = g.constant([0, -1, heads, size], np.int64)

    def project(part, order):
        found = g.linear(x, getattr(attention, part), ranges[f"{name}.{part}"])
        return g.node("Transpose", g.node("Reshape", found, split), perm=order), ranges[f"{name}.{part}:out"]

    query, query_limits = project("q_lin", [0, 2, 1, 3])
    key, key_limits = project("k_lin", [0, 2, 3, 1])
    value, value_limits = project("v_lin", [0, 2, 1, 3])
    scores = g.node("Div", g.product(query, key, query_limits, key_limits), g.constant(math.sqrt(size)))
    shares = g.node("Softmax", g.node("Add", scores, mask), axis=-1)
    context = g.node("Transpose", g.product(shares, value, (0.0, 1.0), value_limits), perm=[0, 2, 1, 3])
    context = g.node("Reshape", context, g.constant([0, -1, heads * size], np.int64))
    return g.linear(context, attention.out_lin, ranges[f"{name}.out_lin"])


def build(model):
    g, ranges = Graph(), Ranges(model)
    x = embed(g, model.distilbert.embeddings)
    mask = g.node("Cast", g.node("Unsqueeze", "attention_mask", g.constant([1, 2], np.int64)), to=TensorProto.FLOAT)
    mask = g.node("Mul", g.node("Sub", g.constant(1), mask), g.constant(-10000))
    for i, layer in enumerate(model.distilbert.transformer.layer):
        name = f"distilbert.transformer.layer.{i}"
        x = g.norm(g.node("Add", attend(g, x, mask, layer.attention, f"{name}.attention", ranges), x), layer.sa_layer_norm)
        inner = g.gelu(g.linear(x, layer.ffn.lin1, ranges[f"{name}.ffn.lin1"]))
        inner = g.linear(inner, layer.ffn.lin2, ranges[f"{name}.ffn.lin2"])
        x = g.norm(g.node("Add", inner, x), layer.output_layer_norm)
    first = g.node("Gather", x, g.constant(0, np.int64), axis=1)
    g.dense(g.node("Relu", g.dense(first, model.pre_classifier)), model.classifier, output="logits")
    ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in ("input_ids", "attention_mask")]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", model.config.num_labels])
    constants = [numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name) for name, array in g.constants.items()]
    graph = helper.make_graph(g.nodes, "distilbert", ids, [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def main():
    directory, out = sys.argv[1:]
    model = DistilBertForSequenceClassification.from_pretrained(directory, attn_implementation="eager").eval()
    onnx.save(build(model), out)


if __name__ == "__main__":
    main()
