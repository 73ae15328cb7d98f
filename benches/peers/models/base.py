"""The networks that every runtime is given, as Hugging Face directories, with PyTorch's own f32 logits beside them.

    base.py --texts texts.json --out DIR (--seed N | --model DIR)

    dense/    the seeded random DistilBERT at distilbert-base's shape, or a copy of the given classifier
    pruned/   60 % of the heads and of the feed-forward units deleted: smaller matrices, sizes in config.json's block "limbeck"
    blocks/   80 % of each encoder matrix zero in blocks of 16 outputs x 4 inputs: limbeck's pattern
    stripes/  80 % of each encoder matrix zero in blocks of 4 inputs of one output: the pattern that suits DeepSparse

Every directory has reference.json: the logits of each workload's texts, one text at a time and so without padding. Those of
`pruned` come from a whole network whose deleted parts are multiplied by zero, not from the smaller matrices.
"""
import argparse, json, shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification

import vocabulary

LABELS = ["World", "Sports", "Business", "Technology"]
DELETED = 0.6
ZEROS = 0.8
TOKENIZER = ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"]


def random_model(seed):
    """Weights as transformers draws them, and biases that are not zero, so that no exporter folds them away."""
    torch.manual_seed(seed)
    names = dict(enumerate(LABELS))
    model = DistilBertForSequenceClassification(DistilBertConfig(id2label=names, label2id={v: k for k, v in names.items()}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.02)
    return model


def save(model, directory, tokenizer, texts, tensors=None, block=None):
    """The directory, with `tensors` instead of the model's own where its parts are deleted, and the model's logits."""
    directory.mkdir(parents=True)
    model.eval().save_pretrained(directory)
    if tensors:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**config, "limbeck": block}, indent=2))
    for name in TOKENIZER:
        if tokenizer and (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, directory / name)
    if not tokenizer:
        vocabulary.write(directory, model.config.vocab_size)
    with torch.inference_mode():
        logits = {name: [model(torch.tensor([ids])).logits[0].tolist() for ids in rows] for name, rows in texts.items()}
    (directory / "reference.json").write_text(json.dumps(logits))


def encoder_matrices(model):
    return [module for module in model.distilbert.transformer.modules() if isinstance(module, torch.nn.Linear)]


def zero_blocks(model, outputs, inputs):
    """Zeroes the ZEROS of each matrix's blocks that are smallest in sum of magnitudes."""
    with torch.no_grad():
        for linear in encoder_matrices(model):
            rows, columns = linear.weight.shape
            blocks = linear.weight.view(rows // outputs, outputs, columns // inputs, inputs)
            size = blocks.abs().sum((1, 3))
            least = size.flatten().argsort()[: int(ZEROS * size.numel())]
            keep = torch.ones(size.numel()).index_fill_(0, least, 0).view(size.shape)
            blocks *= keep[:, None, :, None]
    return model


def delete(model):
    """The tensors that are left, the block of config.json that says so, and the whole model with the deleted parts silent."""
    config, tensors, layers = model.config, dict(model.state_dict()), []
    head, left = config.dim // config.n_heads, round(config.n_layers * config.n_heads * (1 - DELETED))
    units = int(config.hidden_dim * (1 - DELETED)) // 16 * 16
    with torch.no_grad():
        for i, layer in enumerate(model.distilbert.transformer.layer):
            prefix = f"distilbert.transformer.layer.{i}."
            heads = left // config.n_layers + (i < left % config.n_layers)
            size = layer.attention.out_lin.weight.view(config.dim, config.n_heads, head).abs().sum((0, 2))
            kept = size.argsort(descending=True)[:heads].sort().values
            rows = (kept[:, None] * head + torch.arange(head)).flatten()
            inner = layer.ffn.lin1.weight.abs().sum(1).argsort(descending=True)[:units].sort().values
            for name in ("q_lin", "k_lin", "v_lin"):
                for part in ("weight", "bias"):
                    key = f"{prefix}attention.{name}.{part}"
                    tensors[key] = tensors[key][rows].clone()
            for part in ("weight", "bias"):
                tensors[f"{prefix}ffn.lin1.{part}"] = tensors[f"{prefix}ffn.lin1.{part}"][inner].clone()
            for name, columns, linear in (("attention.out_lin", rows, layer.attention.out_lin), ("ffn.lin2", inner, layer.ffn.lin2)):
                tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.weight"][:, columns].clone()
                silent = torch.ones(linear.in_features, dtype=torch.bool)
                silent[columns] = False
                linear.weight[:, silent] = 0
            layers.append({"heads": kept.tolist(), "intermediate": units})
    return {name: value.contiguous() for name, value in tensors.items()}, {"head_size": head, "layers": layers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="JSON: workload -> texts as token ids")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a DistilBERT classifier instead of the random one")
    args = parser.parse_args()
    texts = json.loads(args.texts.read_text())

    def model():
        if args.model:
            return DistilBertForSequenceClassification.from_pretrained(args.model)
        return random_model(args.seed)

    save(model(), args.out / "dense", args.model, texts)
    save(zero_blocks(model(), 16, 4), args.out / "blocks", args.model, texts)
    save(zero_blocks(model(), 1, 4), args.out / "stripes", args.model, texts)
    whole = model()
    tensors, block = delete(whole)
    save(whole, args.out / "pruned", args.model, texts, tensors, block)


if __name__ == "__main__":
    main()
