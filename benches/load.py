"""What it takes to import a large model and to load it: time and peak memory of the commands.

    python benches/load.py FOLDER [gpt2-xl] [llama-7b]

Makes models of random weights in FOLDER, of the shapes of GPT-2 XL (float32, one file, 6.2 GB) and
Llama 2 7B (bfloat16, five files, 13.5 GB), imports each into a store there, and has it say one token.
Needs torch and safetensors (deploy/setup.sh --transformers) and target/release/palimpsest;
the space for each model twice. What is there already is used again.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
GIB = 2**30


CHANCE = torch.Generator().manual_seed(1)


def random(*shape, dtype):
    return torch.empty(*shape).normal_(0, 0.02, generator=CHANCE).to(dtype)


def gpt2_xl(folder):
    layers, width, vocabulary, context = 48, 1600, 50257, 1024
    dtype = torch.float32
    tensors = {
        "transformer.wte.weight": random(vocabulary, width, dtype=dtype),
        "transformer.wpe.weight": random(context, width, dtype=dtype),
    }
    shapes = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width), "mlp.c_fc": (width, 4 * width), "mlp.c_proj": (4 * width, width)}
    norms = ["transformer.ln_f"]
    for layer in range(layers):
        here = f"transformer.h.{layer}."
        norms += [here + "ln_1", here + "ln_2"]
        for name, shape in shapes.items():
            tensors[f"{here}{name}.weight"] = random(*shape, dtype=dtype)
            tensors[f"{here}{name}.bias"] = torch.zeros(shape[1])
    for name in norms:
        tensors[name + ".weight"], tensors[name + ".bias"] = torch.ones(width), torch.zeros(width)
    save_file(tensors, folder / "model.safetensors")
    shape = {"n_layer": layers, "n_embd": width, "n_head": 25, "n_inner": None, "vocab_size": vocabulary, "n_positions": context, "n_ctx": context}
    return "gpt2", shape, "f32"


def llama_7b(folder):
    layers, width, inner, vocabulary, files = 32, 4096, 11008, 32000, 5
    dtype = torch.bfloat16
    where = {}

    def save(number, tensors):
        name = f"model-{number:05}-of-{files:05}.safetensors"
        save_file(tensors, folder / name)
        where.update(dict.fromkeys(tensors, name))

    ends = {name: random(vocabulary, width, dtype=dtype) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save(1, {**ends, "model.norm.weight": torch.ones(width, dtype=dtype)})
    shapes = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    for part in range(files - 1):
        tensors = {}
        for layer in range(part * 8, part * 8 + 8):
            here = f"model.layers.{layer}."
            tensors |= {f"{here}{name}.weight": random(*shape, dtype=dtype) for name, shape in shapes.items()}
            norms = ("input_layernorm", "post_attention_layernorm")
            tensors |= {f"{here}{name}.weight": torch.ones(width, dtype=dtype) for name in norms}
        save(part + 2, tensors)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner, "num_attention_heads": 32, "num_key_value_heads": 32}
    return "llama", shape | {"vocab_size": vocabulary, "head_dim": width // 32, "tie_word_embeddings": False}, "bf16"


def make(folder, model):
    begun = folder.with_suffix(".part")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    family, shape, dtype = model(begun)
    config = json.loads((FIXTURES / family / "config.json").read_text()) | shape
    (begun / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
    shutil.copy(FIXTURES / "tokenizer.json", begun)
    begun.rename(folder)


def measure(*arguments):
    """Runs the program; its time in seconds and its peak memory in bytes, of which so much is its own
    and not a file's."""
    begun = time.monotonic()
    program = subprocess.Popen([ROOT / "target/release/palimpsest", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peaks = {"VmHWM": 0, "RssAnon": 0}
    while program.poll() is None:
        try:
            status = Path(f"/proc/{program.pid}/status").read_text()
        except OSError:
            break
        for name in peaks:
            found = re.search(rf"{name}:\s+(\d+) kB", status)
            peaks[name] = max(peaks[name], int(found[1]) * 1024 if found else 0)
        time.sleep(0.02)
    said = program.stderr.read()
    if program.wait() != 0:
        raise SystemExit(said)
    return time.monotonic() - begun, peaks["VmHWM"], peaks["RssAnon"]


def main():
    models = {"gpt2-xl": gpt2_xl, "llama-7b": llama_7b}
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    work = Path(sys.argv[1]).resolve()
    store = ["--store", str(work / "store")]
    for name in sys.argv[2:] or models:
        folder = work / name
        if not folder.exists():
            make(folder, models[name])
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        dtype = json.loads((folder / "config.json").read_text())["dtype"]
        shutil.rmtree(work / "store", ignore_errors=True)
        asked = ["generate", "The castle", "--max-tokens", "1", "--dtype", dtype, "--no-cache", "--model", name, *store]
        runs = {"import": [measure("model", "import", str(folder), "--name", name, *store)]}
        runs["load and say a token"] = [measure(*asked) for _ in range(3)]
        print(f"{name}: weights of {weights / GIB:.2f} GiB in {dtype}")
        for what, found in runs.items():
            seconds, peak, own = (sorted(column)[len(found) // 2] for column in zip(*found))
            print(f"  {what}: {seconds:.1f} s, peak of {peak / GIB:.2f} GiB, {own / GIB:.2f} of them not of files")
    shutil.rmtree(work / "store", ignore_errors=True)


if __name__ == "__main__":
    main()
