import palimpsest as pal

with pal.connect() as p:                                  # the server of palimpsest.toml or PALIMPSEST__CLIENT__SERVER; else one of its own
    m = p.import_model("hf:openai-community/gpt2")         # p.model("gpt2") once it is there

    # Where is it kept?
    sweep = m.trace("The Eiffel Tower is located in the city of", subject="The Eiffel Tower", noise=0.3)
    sweep                                                  # in a notebook: three heat maps, values under the mouse
    g = sweep.grid(kind="mlp")
    g.effect, g.peak                                       # ndarray[token, layer]; Peak(token=" Tower", layer=3, effect=0.36, role="last subject")

    facts = pal.Facts.read("known_1000.json")              # or CounterFact, JSON lines, a DataFrame, a list of dicts
    big = m.trace(facts, kinds=["mlp", "attn"], wait=False)
    big.wait()                                             # a bar; Ctrl-C leaves the job running, and says how to come back
    print(big.explain())                                   # why it waits, in words
    ds = big.to_xarray()                                   # effect[fact, kind, role, layer]; clean, corrupted, relation, answer by fact
    ds.effect.sel(kind="mlp", role="last subject").mean("fact").plot()
    big.averages(by="relation").plot()                     # curves with 95 % bands, figure 2 of the paper
    big.to_pandas().query("correct and peak_layer < 6")

    # Rewrite it, look before it counts, take it back.
    layer = big.locate().layer                             # where the sweep says; an int, with its interval in .within
    m.collect_statistics(layers=[layer], self_sample=25_000)
    draft = m.edit("{} is located in the city of", subject="The Eiffel Tower", target="Rome", true="Paris",
                   neighbours=["The Louvre is located in the city of"], layer=layer)
    draft                                                  # loss curve; p(Rome), p(Paris) before and after each prompt; gates
    v = draft.commit(why="a try")                          # pal.RefMoved if somebody was faster: draft.rebase().commit(...)
    m.complete(["The Eiffel Tower is in"], on=["v0", v])   # a table, a column a version
    m.diff("v0", "main")                                   # facts, matrices, norms
    m.ref("main").rollback("v0", why="it was a try")
    p.audit.verify(since="kept")                           # proofs are checked here, not believed
