"""A newcomer's first minutes, on a server of one's own: a trace, an edit, and its rollback.

    python newcomer.py FOLDER      of a model; deploy/wheel.sh runs it with the wheels it made
"""

import sys

import palimpsest as pal

PROMPT, SUBJECT = "The Eiffel Tower is located in the city of", "The Eiffel Tower"

with pal.connect() as p:
    model = p.import_model(sys.argv[1], "newcomer")
    sweep = model.trace(PROMPT, subject=SUBJECT, samples=2, noise=0.3)
    print(sweep.grid(kind="mlp"))
    layer = sweep.locate().layer
    # Few tokens, for a first look: what is asked for without is ten a channel.
    model.collect_statistics([layer], self_sample=4000)
    draft = model.edit(
        "{} is located in the city of", subject=SUBJECT, target="Rome", layer=layer
    )
    print(draft)
    version = draft.commit(why="a try")
    print(model.complete([PROMPT], on=["v0", version], max_tokens=3))
    back = model.ref("main").rollback("v0", why="it was a try")
    assert back.version == model.version("v0").digest, back
    print(p.audit.verify())
