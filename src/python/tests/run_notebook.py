"""Runs a notebook to its end: python run_notebook.py NOTEBOOK. Says, one JSON object, how many
outputs it has, and what they are; fails where a cell does."""

import json
import sys

import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
kinds = [kind for out in outputs for kind in out.get("data", {})]
text = "".join(out.get("text", "") for out in outputs)
html = "".join("".join(out.get("data", {}).get("text/html", "")) for out in outputs)
print(json.dumps({"kinds": kinds, "text": text, "html": html}))
