#!/usr/bin/env python3
"""One training step of a DistilBERT classifier in PyTorch, in seconds.

    python tools/compare/train_step.py --model DIR --data train.csv --precision f32 --steps 6 --venv .venv

The batch is the first 32 rows of the AG News csv, cut to 256 tokens and padded to the longest, the same batch every step. A
step is zero_grad, forward with dropout, cross-entropy, backward, clip_grad_norm_(1.0) and fused AdamW; tokenizing is outside
the clock. bf16 is autocast over f32 weights. Prints one JSON line a step; the first two only warm up. With --interactive it
speaks the protocol of common.py, for train_step_compare.py.
"""
import argparse, json, time

import common


def build(args):
    """Model, optimizer and batch; returns what to say about them and a function that runs one timed step."""
    import torch
    from transformers import AutoModelForSequenceClassification
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    texts, labels = common.read_ag_news(args.data, args.batch)
    rows = common.encode(args.model, texts, args.max_tokens)
    ids, mask = common.pad(rows)
    labels = torch.tensor(labels)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=4, dtype=torch.float32, attn_implementation=args.attention).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, fused=True)

    def step():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"seconds": time.perf_counter() - start, "loss": loss.item(), "tokens": sum(map(len, rows))}

    about = {"name": "PyTorch", "version": torch.__version__, "precision": args.precision, "attention": args.attention,
             "threads": args.threads, "rows": args.batch, "padded_to": ids.shape[1], "tokens": sum(map(len, rows)),
             "parameters": sum(p.numel() for p in model.parameters())}
    return about, step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face DistilBERT directory")
    parser.add_argument("--data", required=True, help="AG News train.csv")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa",
                        help="PyTorch's attention (default: %(default)s, its default)")
    parser.add_argument("--steps", type=int, default=8, help="steps to run, two of them warm-up (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interactive", action="store_true", help="speak the protocol of common.py")
    common.add_arguments(parser)
    args = common.parse(parser)
    about, step = build(args)
    if args.interactive:
        return common.serve(about, step)
    print(json.dumps({**about, "machine": common.machine()}))
    for i in range(args.steps):
        print(json.dumps({"step": i, "warm_up": i < 2, **step()}), flush=True)


if __name__ == "__main__":
    main()
