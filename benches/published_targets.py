"""How long a target of an edit takes the published way: what MEMIT's released compute_z does, and ROME's compute_v with the
passes for its key, on the same model, facts and contexts as `benches/mass.rs` and `benches/edit.rs`.

    cargo bench --bench mass -- --parts targets --save FILE        # or: cargo bench --bench edit -- --save FILE
    python benches/published_targets.py .deps/SmolLM2-135M-Instruct.Q4_1.gguf FILE [--threads 1]

A step is a forward pass of all rows, filled up to the longest, through all layers and the vocabulary; the target's
log-probabilities from the last block's output through the vocabulary once more (MEMIT); and back to what was added. Needs
torch, transformers and gguf. With one thread times are CPU time.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers


def find_target(model, tokenizer, fact, contexts, layer, hyper, rome):
    """Steps done, the last loss, and the length of what was added in lengths of what was there."""
    subject, target = fact["subject"], fact["target_new"]
    target_ids = tokenizer(" " + target, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    rewriting = [context.format(fact["prompt"]) + tokenizer.decode(target_ids[:-1]) for context in contexts]
    prompts = rewriting + ["{} is a"]
    rows = tokenizer([prompt.format(subject) for prompt in prompts], return_tensors="pt", padding=True)
    lengths = rows["attention_mask"].sum(1)
    wanted = torch.full((len(rewriting), rows["input_ids"].shape[1]), -100)
    for n in range(len(rewriting)):
        wanted[n, lengths[n] - len(target_ids) : lengths[n]] = target_ids

    def last_subject_token(prompt):
        before, _, _ = prompt.partition("{}")
        text = prompt.format(subject)
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        end = len(before) + len(subject)
        return max(n for n, (a, b) in enumerate(offsets) if a < end and a < b)

    lookups = [last_subject_token(prompt) for prompt in prompts]
    delta = torch.zeros(model.config.hidden_size, requires_grad=True)
    clean, start, seen = None, None, {}

    def change(_module, _inputs, output):
        nonlocal clean
        stream = output[0] if isinstance(output, tuple) else output
        if clean is None:
            clean = stream[0, lookups[0]].detach().clone()
        for n, at in enumerate(lookups):
            stream[n, at, :] += delta
        return output

    def keep(_module, _inputs, output):
        seen["last"] = output[0] if isinstance(output, tuple) else output

    layers = model.model.layers
    moved = layers[layer].mlp if rome else layers[layer]
    if rome:
        # The key is an average over the same sentences, which pass through the whole model; so does the sentence alone, for
        # the key and the value that are there.
        with torch.no_grad():
            model(**rows)
            model(**tokenizer(prompts[0].format(subject), return_tensors="pt"))
    adam = torch.optim.Adam([delta], lr=hyper["learning_rate"])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for step in range(hyper["steps"]):
        adam.zero_grad()
        hooks = [moved.register_forward_hook(change), layers[-1].register_forward_hook(keep)]
        logits = model(**rows).logits
        for hook in hooks:
            hook.remove()
        kl = torch.stack([logits[n, at] for n, at in enumerate(lookups) if n >= len(rewriting)])
        kl = F.log_softmax(kl, dim=1)
        if start is None:
            start = kl.detach().clone()
        sentences = len(rewriting)
        full = logits[:sentences] if rome else model.lm_head(model.model.norm(seen["last"][:sentences]))
        log = F.log_softmax(full, dim=2)
        # At a row's last positions, each of which says the next token of the target.
        mask = (wanted != -100).float()
        at = torch.where(wanted != -100, wanted, 0)
        log = torch.gather(log, 2, at.unsqueeze(2)).squeeze(2)
        nll = -(log * mask).sum(1) / len(target_ids)
        drift = hyper["kl_factor"] * F.kl_div(start, kl, log_target=True, reduction="batchmean")
        loss = nll.mean() + drift + hyper["weight_decay"] * delta.norm() / clean.norm() ** 2
        if loss < hyper["stop_loss"] or step + 1 == hyper["steps"]:
            break
        loss.backward()
        adam.step()
        with torch.no_grad():
            most = hyper["clamp"] * clean.norm()
            if delta.norm() > most:
                delta.mul_(most / delta.norm())
    return step + 1, loss.item(), (delta.norm() / clean.norm()).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("saved", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    saved = json.loads(options.saved.read_text())
    folder, name = str(options.model.parent), options.model.name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.eos_token
    now = time.process_time if options.threads == 1 else time.perf_counter
    each, steps_of = [], []
    for fact in saved["facts"]:
        begun = now()
        steps, loss, length = find_target(model, tokenizer, fact, saved["contexts"], saved["layer"], saved["hyper"], saved["rome"])
        each.append(now() - begun)
        steps_of.append(each[-1] / steps)
        print(f"{fact['subject']}: {each[-1]:.2f} s, {steps} steps, loss {loss:.3f}, length {length:.3f}", flush=True)
    print(f"median {statistics.median(each):.2f} s a target, {statistics.median(steps_of):.3f} s a step")


if __name__ == "__main__":
    main()
