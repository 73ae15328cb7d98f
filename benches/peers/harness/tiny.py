"""A tiny DistilBERT and its logits in plain Python, for `run --self-test`: no package, no network, a second of time."""
import json, math, random, struct
from operator import mul

from harness import workloads
from models import vocabulary

SIZES = {"vocab_size": 600, "max_position_embeddings": 128, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
LABELS = ["World", "Sports", "Business", "Technology"]
RAGGED = [31, 47, 73, 52]


def weights():
    """Name -> (shape, values), seeded."""
    rnd, hidden, inner = random.Random(5), SIZES["dim"], SIZES["hidden_dim"]
    found = {}

    def add(name, shape, middle=0.0, spread=0.2):
        found[name] = shape, [rnd.gauss(middle, spread) for _ in range(math.prod(shape))]

    def linear(name, outputs, inputs):
        add(f"{name}.weight", (outputs, inputs))
        add(f"{name}.bias", (outputs,), spread=0.05)

    def norm(name):
        add(f"{name}.weight", (hidden,), middle=1.0, spread=0.05)
        add(f"{name}.bias", (hidden,), spread=0.05)

    add("distilbert.embeddings.word_embeddings.weight", (SIZES["vocab_size"], hidden))
    add("distilbert.embeddings.position_embeddings.weight", (SIZES["max_position_embeddings"], hidden))
    norm("distilbert.embeddings.LayerNorm")
    for layer in range(SIZES["n_layers"]):
        prefix = f"distilbert.transformer.layer.{layer}."
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            linear(f"{prefix}attention.{name}", hidden, hidden)
        linear(f"{prefix}ffn.lin1", inner, hidden)
        linear(f"{prefix}ffn.lin2", hidden, inner)
        norm(f"{prefix}sa_layer_norm")
        norm(f"{prefix}output_layer_norm")
    linear("pre_classifier", hidden, hidden)
    linear("classifier", len(LABELS), hidden)
    return found


class Network:
    """DistilBERT's forward pass as its paper has it, row by row, in f64."""

    def __init__(self, tensors):
        self.tensors = tensors

    def rows(self, name):
        (_, columns), values = self.tensors[name]
        return [values[i : i + columns] for i in range(0, len(values), columns)]

    def linear(self, name, xs):
        matrix, bias = self.rows(f"{name}.weight"), self.tensors[f"{name}.bias"][1]
        return [[sum(map(mul, row, x)) + b for row, b in zip(matrix, bias)] for x in xs]

    def norm(self, name, xs):
        gamma, beta = self.tensors[f"{name}.weight"][1], self.tensors[f"{name}.bias"][1]
        found = []
        for x in xs:
            mean = sum(x) / len(x)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in x) / len(x) + 1e-12)
            found.append([(value - mean) / deviation * g + b for value, g, b in zip(x, gamma, beta)])
        return found

    def attend(self, prefix, xs):
        query, key, value = (self.linear(f"{prefix}.{name}", xs) for name in ("q_lin", "k_lin", "v_lin"))
        size, context = SIZES["dim"] // SIZES["n_heads"], [[] for _ in xs]
        for start in range(0, SIZES["dim"], size):
            part = slice(start, start + size)
            keys, columns = [k[part] for k in key], list(zip(*(v[part] for v in value)))
            for q, out in zip(query, context):
                scores = [sum(map(mul, q[part], k)) / math.sqrt(size) for k in keys]
                shares = [math.exp(score - max(scores)) for score in scores]
                out += [sum(map(mul, shares, column)) / sum(shares) for column in columns]
        return self.linear(f"{prefix}.out_lin", context)

    def logits(self, ids):
        words, places = (self.rows(f"distilbert.embeddings.{name}_embeddings.weight") for name in ("word", "position"))
        added = lambda xs, ys: [list(map(sum, zip(x, y))) for x, y in zip(xs, ys)]
        xs = self.norm("distilbert.embeddings.LayerNorm", added([words[i] for i in ids], places))
        for layer in range(SIZES["n_layers"]):
            prefix = f"distilbert.transformer.layer.{layer}"
            xs = self.norm(f"{prefix}.sa_layer_norm", added(self.attend(f"{prefix}.attention", xs), xs))
            inner = [[x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in row] for row in self.linear(f"{prefix}.ffn.lin1", xs)]
            xs = self.norm(f"{prefix}.output_layer_norm", added(self.linear(f"{prefix}.ffn.lin2", inner), xs))
        dense = [[max(x, 0.0) for x in row] for row in self.linear("pre_classifier", xs[:1])]
        return self.linear("classifier", dense)[0]


def save(path, tensors):
    """A safetensors file: the length of a JSON header, the header, f32 values."""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        start = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write(folder):
    """Model, texts and logits, as models/base.py lays them out."""
    directory, tensors = folder / "dense", weights()
    directory.mkdir(parents=True)
    names = {str(i): label for i, label in enumerate(LABELS)}
    config = {"model_type": "distilbert", "activation": "gelu", "id2label": names, **SIZES}
    (directory / "config.json").write_text(json.dumps(config))
    save(directory / "model.safetensors", tensors)
    vocabulary.write(directory, SIZES["vocab_size"])
    texts = workloads.texts(SIZES["vocab_size"])
    texts = {name: texts[name] for name in map(workloads.name, (16, 64))} | {
        workloads.RAGGED: [text[:length] for text, length in zip(texts[workloads.name(128)] * len(RAGGED), RAGGED)]}
    network = Network(tensors)
    (folder / "texts.json").write_text(json.dumps(texts))
    logits = {name: [network.logits(text) for text in rows] for name, rows in texts.items()}
    (directory / "reference.json").write_text(json.dumps(logits))
