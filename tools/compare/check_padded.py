#!/usr/bin/env python3
"""Does an `hf-padded` export give limbeck's logits in stock transformers?

    limbeck export runs/agnews/pruned padded --format hf-padded
    python3 tools/compare/check_padded.py --padded padded --model runs/agnews/pruned --original DIR --venv .venv

Runs `limbeck predict MODEL` on the texts (--texts FILE, one a line; a few built-in ones otherwise), loads the export in
transformers with no code of ours, in float32, and compares the logits of each text: every difference must be at most 1e-4,
else the exit code is 1. --predictions FILE takes the JSON lines (fields label, logits, probabilities) from a file instead. Says
too how many heads and FFN units of each layer are all zero in the export, that is, were deleted; and, with --original, how far
the pruned logits lie from those of the model it was pruned from, for information.
"""
import argparse, json, subprocess, sys
from pathlib import Path

import common

TEXTS = [
    "Oil prices rose on Friday after a fire closed a refinery in Texas.",
    "Late goal sends the home side through to the cup final.",
    "Scientists say the probe's photographs show frozen water near the crater's rim, the first seen so far from the pole.",
    "Ministers meet in Geneva for a second day of talks.",
    "x",
    "Caf\u00e9 na\u00efve \u65b0\u805e \U0001f600 -- #36;10 million \\ prize",
    "word " * 200,
]


def predictions(args, texts):
    """limbeck's answers, one dictionary a text."""
    if args.predictions:
        lines = args.predictions.read_text(encoding="utf-8").splitlines()
    else:
        run = subprocess.run([args.limbeck, "predict", args.model], input="\n".join(texts) + "\n", stdout=subprocess.PIPE,
                             encoding="utf-8", check=False)
        if run.returncode:
            sys.exit(f"limbeck predict ended with status {run.returncode}")
        lines = run.stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    if len(found) != len(texts):
        sys.exit(f"{len(texts)} texts, but {len(found)} predictions")
    return found


def stock(directory, texts, max_tokens):
    """Logits of each text alone in stock transformers, and the model."""
    import torch
    from transformers import AutoModelForSequenceClassification
    model, report = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    wrong = {kind: sorted(report[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[kind]}
    if wrong:
        sys.exit(f"{directory}: not a complete stock checkpoint: {wrong}")
    model.eval()
    limit = min(max_tokens, model.config.max_position_embeddings)
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits[0].tolist() for ids in common.encode(directory, texts, limit)], model


def zeros(model):
    """All-zero heads and FFN units of each layer of a DistilBERT or BERT."""
    weights = {name: value for name, value in model.state_dict().items() if value.dim() == 2}
    heads = model.config.num_attention_heads
    per_head = [(w.reshape(heads, -1) == 0).all(1).sum().item() for n, w in weights.items() if n.endswith(("v_lin.weight", "value.weight"))]
    units = [(w == 0).all(1).sum().item() for n, w in weights.items() if n.endswith(("lin1.weight", "intermediate.dense.weight"))]
    return per_head, units


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--padded", type=Path, required=True, help="what `limbeck export --format hf-padded` wrote")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="the pruned model, for `limbeck predict`")
    source.add_argument("--predictions", type=Path, help="JSON lines of `limbeck predict` on the texts")
    parser.add_argument("--original", type=Path, help="Hugging Face directory of the model before pruning")
    parser.add_argument("--texts", type=Path, help="one text a line")
    parser.add_argument("--max-tokens", type=int, default=512, help="where limbeck cuts a text (default: %(default)s)")
    parser.add_argument("--bound", type=float, default=1e-4, help="largest difference allowed (default: %(default)s)")
    parser.add_argument("--limbeck", type=Path, default=common.ROOT / "target" / "release" / "limbeck", help="the binary")
    common.add_arguments(parser)
    args = common.parse(parser)
    texts = [line for line in args.texts.read_text(encoding="utf-8").split("\n") if line] if args.texts else TEXTS
    ours = predictions(args, texts)
    theirs, model = stock(args.padded, texts, args.max_tokens)
    heads, units = zeros(model)
    print(f"deleted heads per layer {heads}, deleted FFN units per layer {units}")
    gaps = []
    for text, mine, other in zip(texts, ours, theirs):
        if len(mine["logits"]) != len(other):
            sys.exit(f"{len(mine['logits'])} logits from limbeck, {len(other)} from the export")
        gaps.append([abs(a - b) for a, b in zip(mine["logits"], other)])
        print(f"{max(gaps[-1]):.2e}  {mine['label']!s:>10}  {text[:60]}")
    if args.original:
        before, _ = stock(args.original, texts, args.max_tokens)
        away = max(abs(a - b) for x, y in zip(before, theirs) for a, b in zip(x, y))
        print(f"for information: pruning moved the logits by at most {away:.3f}")
    good = all(gap <= args.bound for row in gaps for gap in row)  # false for NaN
    print(f"largest difference {max(map(max, gaps)):.2e} over {len(texts)} texts: {'within' if good else 'NOT within'} {args.bound:.0e}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
