#!/usr/bin/env python3
"""Fine-tunes a DistilBERT on AG News with PyTorch: the accuracy and the time that limbeck's baseline stands beside.

    python3 tools/compare/agnews_baseline.py --model DIR --data AG_NEWS_DIR --venv .venv
    python3 tools/compare/agnews_baseline.py --model DIR --data AG_NEWS_DIR --venv .venv --steps 40     # time only, extrapolated

transformers' DistilBertForSequenceClassification (a head on the first token) over every row of train.csv: 2 epochs, batch 32,
padded to the longest of each batch, cut to 256 tokens, shuffled each epoch, bf16 autocast, fused AdamW (weight decay 0.01),
learning rate 1e-4 with linear warm-up over 6 % of the steps and linear decay to 0, gradients clipped at 1.0. Then the accuracy
on every row of test.csv. Tokenizing, training and evaluation are timed apart; "total_seconds" is their sum, without loading.
Training takes the machine alone for many minutes: a busy neighbour spoils it, and `--steps` gives the time sooner.
"""
import argparse, json, math, sys, time
from pathlib import Path

import common


def wilson(right, rows, z=1.96):
    """The 95 % interval of a share (Wilson, 1927)."""
    p, d = right / rows, 1 + z * z / rows
    middle, half = (p + z * z / (2 * rows)) / d, z * math.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows)) / d
    return middle - half, middle + half


def rate_at(step, total, warm_up):
    """Share of the learning rate at a step: linear from 0 to 1 over the warm-up, then linear to 0."""
    return step / max(1, warm_up) if step < warm_up else max(0.0, (total - step) / max(1, total - warm_up))


def train(args, model, rows, labels):
    """All the steps, or the first `args.steps`; returns the figures."""
    import torch
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01, fused=True)
    per_epoch = math.ceil(len(rows) / args.batch)
    total = per_epoch * args.epochs
    warm_up, limit = math.ceil(0.06 * total), args.steps or total
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, total, warm_up))
    shuffle = torch.Generator().manual_seed(args.seed)
    labels, seconds, smooth = torch.tensor(labels), [], None
    model.train()
    for step in range(limit):
        if step % per_epoch == 0:
            order = torch.randperm(len(rows), generator=shuffle)
        start = time.perf_counter()
        chosen = order[step % per_epoch * args.batch :][: args.batch]
        ids, mask = common.pad([rows[i] for i in chosen.tolist()])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels[chosen]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        seconds.append(time.perf_counter() - start)
        if step % 50 == 49 or step + 1 == limit:
            print(f"step {step + 1}/{total}  loss {smooth:.4f}  {sum(seconds):.0f} s", file=sys.stderr, flush=True)
    if limit == total:
        return {"steps": total, "train_seconds": sum(seconds)}
    timed = seconds[min(3, limit - 1):]
    return {"steps": total, "steps_timed": len(timed), "seconds_per_step": sum(timed) / len(timed),
            "train_seconds_extrapolated": sum(timed) / len(timed) * total}


def evaluate(args, model, rows, labels):
    """Accuracy over the rows, 64 at a time in the file's order."""
    import torch
    model.eval()
    right, start = 0, time.perf_counter()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
        for i in range(0, len(rows), 64):
            ids, mask = common.pad(rows[i : i + 64])
            found = model(input_ids=ids, attention_mask=mask).logits.argmax(1)
            right += int((found == torch.tensor(labels[i : i + 64])).sum())
    low, high = wilson(right, len(rows))
    return {"test_rows": len(rows), "accuracy": right / len(rows), "accuracy_low": low, "accuracy_high": high,
            "evaluate_seconds": time.perf_counter() - start}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face DistilBERT directory")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--out", type=Path, help="save the fine-tuned model here")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--limit", type=int, help="train on the first rows only")
    parser.add_argument("--steps", type=int, help="run this many steps, extrapolate the time, evaluate nothing")
    parser.add_argument("--seed", type=int, default=0)
    common.add_arguments(parser)
    args = common.parse(parser)
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    facts = common.head()
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=4, dtype=torch.float32)
    texts, labels = common.read_ag_news(args.data / "train.csv", args.limit)
    start = time.perf_counter()
    rows = common.encode(args.model, texts, args.max_tokens)
    result = {**facts, "precision": args.precision, "threads": args.threads, "train_rows": len(rows),
              "tokenize_seconds": time.perf_counter() - start, **train(args, model, rows, labels)}
    if args.steps:
        print(f"extrapolated from {result.get('steps_timed', args.steps)} steps: no accuracy", file=sys.stderr)
    else:
        texts, labels = common.read_ag_news(args.data / "test.csv")
        start = time.perf_counter()
        rows = common.encode(args.model, texts, args.max_tokens)
        result["tokenize_seconds"] += time.perf_counter() - start
        result |= evaluate(args, model, rows, labels)
        result["total_seconds"] = sum(result[part] for part in ("tokenize_seconds", "train_seconds", "evaluate_seconds"))
        if args.out:
            model.save_pretrained(args.out)
            AutoTokenizer.from_pretrained(args.model).save_pretrained(args.out)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
