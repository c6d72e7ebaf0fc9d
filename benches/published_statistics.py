"""How long key statistics take the published way: what ROME's and MEMIT's released layer_stats does, on the same model and
texts as `benches/statistics.rs`.

    cargo bench --bench statistics -- --file FILE --save ours.npz
    python benches/published_statistics.py .deps/SmolLM2-135M-Instruct.Q4_1.gguf FILE [--ours ours.npz] [--threads 1]

Texts are taken a hundred at a time, sorted by length and cut into batches of at most so many tokens, filled up in each; the
model runs up to the layer's MLP and stops; the keys of the texts' own tokens are multiplied and added up in float32. Needs
torch, transformers and gguf. With one thread times are CPU time.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy
import torch
import transformers


class Reached(Exception):
    """The layer has its key: the rest of the model is not run."""


def batches(texts, most):
    """Texts of about one length together, filled up to the longest, as `length_collation` does."""
    for at in range(0, len(texts), 100):
        batch = []
        for text in sorted(texts[at : at + 100], key=len, reverse=True):
            if batch and len(batch[0]) * (len(batch) + 1) > most:
                yield batch
                batch = []
            batch.append(text)
        yield batch


def moment(model, texts, layer, most):
    """Sum of the keys' squares, and how many keys there are."""
    seen = {}

    def keep(module, inputs):
        seen["key"] = inputs[0]
        raise Reached

    total, count = None, 0
    hook = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(keep)
    for batch in batches(texts, most):
        ids = torch.zeros((len(batch), len(batch[0])), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for n, text in enumerate(batch):
            ids[n, : len(text)] = torch.tensor(text)
            mask[n, : len(text)] = 1
        try:
            model(input_ids=ids, attention_mask=mask)
        except Reached:
            pass
        keys = seen["key"][mask.bool()]
        product = keys.t().matmul(keys)
        total = product if total is None else total.add_(product)
        count += len(keys)
    hook.remove()
    return total, count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--layer", type=int, default=6)
    parser.add_argument("--batch-tokens", type=int, default=3 * 1024)
    parser.add_argument("--ours", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    folder, name = str(options.model.parent), options.model.name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    entries = json.loads(options.texts.read_text())
    texts = [entry if isinstance(entry, str) else entry["Text"] for entry in entries]
    now = time.process_time if options.threads == 1 else time.perf_counter
    spent = []
    for _ in range(options.turns):
        begun = now()
        ids = [tokenizer(text)["input_ids"][:512] for text in texts]
        total, count = moment(model, [text for text in ids if text], options.layer, options.batch_tokens)
        spent.append(now() - begun)
    middle = statistics.median(spent)
    print(f"{count} tokens: median {middle:.2f} s, {count / middle:.0f} tokens/s")
    if options.ours:
        ours = numpy.load(options.ours)
        matrix = next(ours[name] for name in ours if ours[name].ndim == 2)
        apart = numpy.abs(matrix - total.double().numpy()).max() / numpy.abs(matrix).max()
        print(f"largest difference to ours: {apart:.1e} of the largest entry")


if __name__ == "__main__":
    main()
