#!/usr/bin/env python3
"""Does limbeck read pairs of sentences as transformers does?

    python3 tools/compare/check_pairs.py --model runs/rte/baseline --pairs RTE/dev.tsv --columns 1 2 --venv .venv

Runs `limbeck predict MODEL --pairs` on the pairs of a tab-separated table (its first --rows rows, a header passed over) and the
same model in transformers, tokenizer and network, in float32, one pair at a time: ids, token types and cut must be the same for
the logits to be. Every difference must be at most 1e-4, else the exit code is 1. The model is any directory that stock
transformers loads with a classification head.
"""
import argparse, json, subprocess, sys
from pathlib import Path

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face directory with a classification head")
    parser.add_argument("--pairs", type=Path, required=True, help="a tab-separated table with a header")
    parser.add_argument("--columns", type=int, nargs=2, default=[1, 2], help="first and second sentence (default: 1 2)")
    parser.add_argument("--rows", type=int, default=40, help="rows that are compared (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="where pairs are cut (default: %(default)s)")
    parser.add_argument("--bound", type=float, default=1e-4, help="largest difference allowed (default: %(default)s)")
    parser.add_argument("--limbeck", type=Path, default=common.ROOT / "target" / "release" / "limbeck", help="the binary")
    common.add_arguments(parser)
    args = common.parse(parser)
    lines = args.pairs.read_text(encoding="utf-8").split("\n")[1 : args.rows + 1]
    pairs = [[line.split("\t")[column] for column in args.columns] for line in lines if line]

    run = subprocess.run([args.limbeck, "predict", args.model, "--pairs", "--max-tokens", str(args.max_tokens)],
                         input="".join(f"{first}\t{second}\n" for first, second in pairs), stdout=subprocess.PIPE,
                         encoding="utf-8", check=False)
    if run.returncode:
        sys.exit(f"limbeck predict ended with status {run.returncode}")
    ours = [json.loads(line)["logits"] for line in run.stdout.splitlines()]

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32).eval()
    worst, cut = 0.0, 0
    for (first, second), logits in zip(pairs, ours, strict=True):
        whole = tokenizer(first, second)["input_ids"]
        encoded = tokenizer(first, second, truncation="longest_first", max_length=args.max_tokens, return_tensors="pt")
        cut += len(whole) > args.max_tokens
        with torch.inference_mode():
            theirs = model(**encoded).logits[0].tolist()
        gap = max(abs(a - b) for a, b in zip(logits, theirs, strict=True))
        worst = gap if not gap <= worst else worst  # NaN stays
    good = worst <= args.bound
    print(f"largest difference {worst:.2e} over {len(pairs)} pairs, {cut} of them cut: "
          f"{'within' if good else 'NOT within'} {args.bound:.0e}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
