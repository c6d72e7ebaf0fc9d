"""Loads what `palimpsest export` wrote with the real transformers and PEFT, and compares logits.

    check_exports.py BASE EXPORTED ADAPTER TOKEN_ID...

BASE is the folder that was imported, EXPORTED the `--format safetensors` of a version, ADAPTER its
`--format peft`. Prints one JSON object: the largest difference of a logit between the exported
model and the base with the adapter, and between the exported model and the base, which says that
the edits do something.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    base_folder, exported_folder, adapter_folder, *ids = sys.argv[1:]
    tokens = torch.tensor([[int(token) for token in ids]])

    def load(folder: str):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    with torch.no_grad():
        exported = load(exported_folder)(tokens).logits
        base = load(base_folder)
        pristine = base(tokens).logits
        adapted = PeftModel.from_pretrained(base, adapter_folder).eval()(tokens).logits
    tokenizer = AutoTokenizer.from_pretrained(exported_folder)
    print(
        json.dumps(
            {
                "adapter": (exported - adapted).abs().max().item(),
                "edited": (exported - pristine).abs().max().item(),
                "logits": exported[0, -1].tolist(),
                "text": tokenizer.decode([int(token) for token in ids]),
            }
        )
    )


if __name__ == "__main__":
    main()
