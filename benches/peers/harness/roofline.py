"""The least time that a forward pass can take on so many cores, from peaks measured in the same run.

    linear ops    = 2 T sum over layers of kept x (4 hidden head h + 2 hidden f)          T: tokens without padding
    attention ops = 4 head sum over layers of h x sum over texts of s^2                   h: heads, f: FFN units, s: tokens
    weight bytes  = b sum over layers of kept x (4 hidden head h + 2 hidden f)            kept: share that is not zero
    time         >= max( linear / peak + attention / peak', bytes / bandwidth )

peak is that of the precision, for attention as for linear layers. "Full" computes the last layer for all tokens, as every peer
does; "first token" computes there only what the classifier reads: in f32 keys and values of all tokens, and everything else for
the first token of each text; in int8, where limbeck absorbs both projections into the one query, all of the layer for the first
token, and 4 hidden h ops for each token. Norms, GELU, softmax and quantization count for nothing.
"""
import json

KEPT = {"blocks": 0.2, "stripes": 0.2}


def layers(directory):
    """Hidden size, head size, and of each layer the heads and the FFN units."""
    config = json.loads((directory / "config.json").read_text())
    count, heads = config["n_layers"], config["n_heads"]
    left = config.get("limbeck", {}).get("layers", [{"heads": range(heads), "intermediate": config["hidden_dim"]}] * count)
    return config["dim"], config["dim"] // heads, [(len(layer["heads"]), layer["intermediate"]) for layer in left]


def seconds(directory, lengths, precision, peaks, first_token):
    """The bound, or None where a peak is not known."""
    hidden, head, sizes = layers(directory)
    kept, tokens, texts = KEPT.get(directory.name, 1.0), sum(lengths), len(lengths)
    linear = attention = weights = 0
    for place, (heads, units) in enumerate(sizes):
        projection, ffn = hidden * head * heads, 2 * hidden * units
        weights += kept * (4 * projection + ffn)
        last = first_token and place + 1 == len(sizes)
        projected = texts if last and precision == "int8" else tokens
        rows = texts if last else tokens
        linear += 2 * kept * (2 * projection * (projected + rows) + ffn * rows)
        if last:
            attention += 4 * heads * tokens * (hidden if precision == "int8" else head)
        else:
            attention += 4 * head * heads * sum(length * length for length in lengths)
    peak = peaks[precision]
    if not peak:
        return None
    return max((linear + attention) / peak / 1e9, weights * (4 if precision == "f32" else 1) / peaks[f"bytes_{precision}"] / 1e9)
