#!/usr/bin/env python3
"""One training step of a DistilBERT classifier in PyTorch on a GPU, in seconds.

    python tools/compare/gpu_step.py --model DIR --data train.csv --batch 256 --mode eager|compile|unpadded --venv .venv

The first rows of the AG News csv, cut to 256 tokens, the same batch every step. A step is zero_grad, forward with dropout,
cross-entropy, backward, clip_grad_norm_(1.0) and fused AdamW, under bf16 autocast over f32 weights; the clock stops when the GPU is done.
`eager` is transformers' model with SDPA, padded to the longest text; `compile` the same through torch.compile; `unpadded` the best
that we could write in PyTorch without padding: one row a token, attention over jagged nested tensors (SDPA's variable-length
kernels), the whole step's forward compiled. With --teacher DIR a step begins with that model's answers (as padded as the student's;
where the student is unpadded, compiled), and the loss is 0.7 T^2 KL(teacher, student) + 0.3 cross-entropy, T = 4. With --interactive it speaks the protocol of common.py, for gpu_step_compare.py.
"""
import argparse, json, os, time

import common


def unpadded(model, torch):
    """A function of (ids, places, offsets, longest) that gives the logits of a transformers DistilBERT classifier without padding."""
    functional = torch.nn.functional
    encoder, config = model.distilbert, model.config
    heads, size = config.n_heads, config.dim // config.n_heads

    def attend(layer, x, offsets, longest):
        split = lambda y: torch.nested.nested_tensor_from_jagged(
            y.view(-1, heads, size), offsets, max_seqlen=longest, min_seqlen=1).transpose(1, 2)
        query, key, value = (split(linear(x)) for linear in (layer.q_lin, layer.k_lin, layer.v_lin))
        rate = config.attention_dropout if model.training else 0.0
        context = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        return layer.out_lin(context.transpose(1, 2).values().reshape(-1, heads * size))

    def forward(ids, places, offsets, longest):
        tables = encoder.embeddings
        x = tables.word_embeddings(ids) + tables.position_embeddings(places)
        x = tables.dropout(tables.LayerNorm(x))
        for layer in encoder.transformer.layer:
            x = layer.sa_layer_norm(attend(layer.attention, x, offsets, longest) + x)
            ffn = layer.ffn
            x = layer.output_layer_norm(ffn.dropout(ffn.lin2(ffn.activation(ffn.lin1(x)))) + x)
        first = x[offsets[:-1]]
        return model.classifier(model.dropout(torch.relu(model.pre_classifier(first))))

    return forward


def teacher(args, texts, torch):
    """A function that gives the teacher's logits of the texts."""
    from transformers import AutoModelForSequenceClassification
    model = AutoModelForSequenceClassification.from_pretrained(
        args.teacher, num_labels=4, dtype=torch.float32, attn_implementation="sdpa").to(args.device).eval()
    ids, mask = (x.to(args.device) for x in common.pad(common.encode(args.teacher, texts, args.max_tokens)))
    run = model if args.mode == "eager" or args.device == "cpu" else torch.compile(model)

    def answers():
        with torch.no_grad(), torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            return run(input_ids=ids, attention_mask=mask).logits

    return answers


def build(args):
    """Model, optimizer and batch; returns what to say about them and a function that runs one timed step."""
    import torch
    from transformers import AutoModelForSequenceClassification
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = args.device
    texts, labels = common.read_ag_news(args.data, args.batch)
    rows = common.encode(args.model, texts, args.max_tokens)
    labels = torch.tensor(labels, device=device)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=4, dtype=torch.float32, attn_implementation="sdpa").to(device).train()
    torch.manual_seed(args.seed)  # a head of the same numbers in every mode
    for layer in (model.pre_classifier, model.classifier):
        torch.nn.init.normal_(layer.weight, std=0.02)
        torch.nn.init.zeros_(layer.bias)
    if args.no_dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        model.config.attention_dropout = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, fused=device == "cuda")
    if args.mode == "unpadded":
        lengths = [len(row) for row in rows]
        ids = torch.tensor(sum(rows, []), device=device)
        places = torch.cat([torch.arange(length) for length in lengths]).to(device)
        offsets = torch.tensor([0, *lengths]).cumsum(0).to(device)
        run = unpadded(model, torch)
        if device == "cuda":
            run = torch.compile(run)
        forward = lambda: run(ids, places, offsets, max(lengths))
    else:
        ids, mask = (x.to(device) for x in common.pad(rows))
        run = torch.compile(model) if args.mode == "compile" else model
        forward = lambda: run(input_ids=ids, attention_mask=mask).logits

    answers = teacher(args, texts, torch) if args.teacher else None

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def step():
        wait()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        wanted = answers() if answers else None
        with torch.autocast(device, dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            logits = forward()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        if wanted is not None:
            t, (p, q) = 4.0, (torch.log_softmax(x.float() / 4.0, dim=-1) for x in (wanted, logits))
            loss = 0.3 * loss + 0.7 * t * t * torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        wait()
        return {"seconds": time.perf_counter() - start, "loss": loss.item(), "tokens": sum(map(len, rows))}

    gpu = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    about = {"name": f"PyTorch, {args.mode}", "version": torch.__version__, "precision": args.precision, "gpu": gpu, "rows": args.batch,
             "longest": max(map(len, rows)), "tokens": sum(map(len, rows)), "parameters": sum(p.numel() for p in model.parameters())}
    return about, step


def main():
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face DistilBERT directory")
    parser.add_argument("--data", required=True, help="AG News train.csv")
    parser.add_argument("--mode", choices=["eager", "compile", "unpadded"], default="eager")
    parser.add_argument("--teacher", metavar="DIR", help="Hugging Face directory of what the student imitates")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu only shows that the modes compute the same")
    parser.add_argument("--no-dropout", action="store_true", help="for comparing losses between modes")
    parser.add_argument("--steps", type=int, default=8, help="steps to run, two of them warm-up (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interactive", action="store_true", help="speak the protocol of common.py")
    common.add_arguments(parser)
    args = common.parse(parser)
    if visible is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]  # common.py hides GPUs from scripts that compare CPUs
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    about, step = build(args)
    if args.interactive:
        return common.serve(about, step)
    print(json.dumps(about))
    for i in range(args.steps):
        print(json.dumps({"step": i, "warm_up": i < 2, **step()}), flush=True)


if __name__ == "__main__":
    main()
