#!/usr/bin/env bash
# Makes the numbers of the README's tables of what edits do to a small model: each table's are a file
# in deploy/results, from which 'cargo nextest run --test formats results' makes the table.
#
#   deploy/results.sh DATA [TABLE...]
#
# TABLEs: mquake zsre sequences long layers, all of them if none is named; and batches, of which the
# README has no table yet.
#
# DATA is a folder with the data sets as they are published: counterfact_full_600.json (full records
# of CounterFact), zsre_1k.json, mquake/, downstream/, me_ppl_2k.json and, for key statistics,
# corpus_1k_texts.json; for batches also known_1000.json. What a table needs of another's is computed
# once and kept in target/results, so an interrupted run goes on.
#
#   RESULTS_WORKERS   workers of one thread (one a core)
#   PALIMPSEST_MODEL  a folder or .gguf file (the demo's SmolLM2-135M)
set -euo pipefail
cd "$(dirname "$0")/.."

tables=(mquake zsre sequences long layers)
[ $# -ge 1 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }
data=$(cd "$1" && pwd)
shift
[ $# -eq 0 ] || tables=("$@")
palimpsest=${PALIMPSEST_PROGRAM:-target/release/palimpsest}
[ -x "$palimpsest" ] || { echo "results: no $palimpsest: cargo build --release" >&2; exit 1; }
work=target/results
out=deploy/results
mkdir -p "$work" "$out"

pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait' EXIT
rm -f "$work/address"
"$palimpsest" serve --listen 127.0.0.1:0 --store "$work/store" --port-file "$work/address" \
  >>"$work/coordinator.log" 2>&1 &
pids+=($!)
until [ -s "$work/address" ]; do
  kill -0 "${pids[0]}" || { tail -n 3 "$work/coordinator.log" >&2; exit 1; }
  sleep 0.1
done
PALIMPSEST__CLIENT__SERVER=http://$(cat "$work/address")
export PALIMPSEST__CLIENT__SERVER
for n in $(seq "${RESULTS_WORKERS:-$(nproc)}"); do
  "$palimpsest" worker --coordinator "$PALIMPSEST__CLIENT__SERVER" --id "worker-$n" --threads 1 \
    --cache "$work/cache-$n" >>"$work/worker-$n.log" 2>&1 &
  pids+=($!)
done

p() { echo "results: palimpsest $*" >&2; "$palimpsest" "$@"; }

p model import "${PALIMPSEST_MODEL:-.deps/SmolLM2-135M-Instruct.Q4_1.gguf}" --name smollm2 >&2
p stats collect --corpus "$data/corpus_1k_texts.json" --layers 4-8 >&2

# written REF FILE FLAG...: a branch with the facts of a file, unless an earlier run wrote it. What a
# run that was interrupted has computed is found again.
written() {
  local ref=$1 file=$2
  shift 2
  [ ! -e "$work/$ref.written" ] || return 0
  if "$palimpsest" refs --json | grep -q "/refs/$ref\""; then
    p rollback --ref "$ref" --to v0 >&2
  else
    p branch "$ref" v0 >&2
  fi
  p edit --file "$file" --ref "$ref" "$@" >&2
  touch "$work/$ref.written"
}

# row FILE LABEL FLAG...: the means of an evaluation, a line a measure, behind the row's label.
row() {
  local file=$1 label=$2
  shift 2
  p eval "$@" --averages --json | sed "s/^{/{\"row\":\"$label\",/" >>"$file"
}

# along FILE LABEL NAME FLAG...: the same after every hundred facts of a sequence, and its curves as
# deploy/figures/NAME*.svg.
along() {
  local file=$1 label=$2 name=$3 figure
  shift 3
  p eval "$@" --along 100 --json --svg "$work/figures" |
    sed -E "s/^\{\"facts\":([0-9]+),/{\"row\":\"$label, \1 facts\",/" >>"$file"
  for figure in "$work"/figures/along*.svg; do
    mv "$figure" "deploy/figures/$name$(basename "$figure" | sed 's/^along//; s/_/-/')"
  done
}

# first FILE N: the first records of a list of JSON.
first() { python3 -c 'import json, sys; json.dump(json.load(open(sys.argv[1]))[:int(sys.argv[2])], sys.stdout)' "$@"; }

MEMIT=(--method memit --layers 4-8 --set lambda=1000 --set early_stop=2)

mquake() {
  # The edits of many instances are one batch: those that are of one fact are written once.
  local file=$data/mquake/mquake_3hop_100.json
  python3 - "$file" >"$work/mquake.json" <<'PYTHON'
import json, sys
facts, seen = [], {}
for record in json.load(open(sys.argv[1])):
    for fact in record["requested_rewrite"]:
        known = seen.setdefault((fact["prompt"], fact["subject"]), fact["target_new"]["str"])
        if known == fact["target_new"]["str"] and fact not in facts:
            facts.append(fact)
json.dump([{"case_id": n, "requested_rewrite": fact} for n, fact in enumerate(facts)], sys.stdout)
PYTHON
  written mquake "$work/mquake.json" "${MEMIT[@]}" --keep-going
  row "$1" "MEMIT, the edits of 100 instances in one batch" --dataset "$file" --ref mquake --limit 30 \
    --hop-examples "$data/mquake/multihop_prompts.txt" --relation-examples "$data/mquake/rel_prompts.json"
}

zsre() {
  first "$data/zsre_1k.json" 100 >"$work/zsre.json"
  written zsre "$work/zsre.json" "${MEMIT[@]}" --keep-going
  row "$1" "MEMIT, 100 facts in one batch" --dataset "$work/zsre.json" --ref zsre
}

# 600 facts, asked again on the way: a hundred of those written so far, perplexity of a hundred texts.
asked_along() {
  local file=$1 ref=$2 label=$3
  along "$file" "$label" "$ref-600" --ref "$ref" --dataset "$data/counterfact_full_600.json" --limit 100 --no-generation
  along "$file" "$label" "$ref-600" --ref "$ref" --texts "$data/me_ppl_2k.json" --limit 100
}

batches() {
  local file=$data/counterfact_full_600.json
  p stats collect --corpus "$data/corpus_1k_texts.json" --layers 1-12 >&2
  p trace --facts "$data/known_1000.json" --limit 200 --kinds mlp --samples 4 --json >"$work/sweep.jsonl"
  written one "$file" "${MEMIT[@]/4-8/auto}"
  asked_along "$1" one "MEMIT in one batch"
  rm deploy/figures/one-600*.svg   # of one point
  written alphaedit "$file" --method alphaedit --layers 4-8 --batch 50 --set early_stop=2
  written memit "$file" "${MEMIT[@]}" --batch 50
  asked_along "$1" alphaedit AlphaEdit
  asked_along "$1" memit MEMIT
}

sequences() {
  first "$data/counterfact_full_600.json" 200 >"$work/counterfact.json"
  # Of them the first sixty are asked again, without their generation prompts.
  python3 -c 'import json, sys
print(json.dumps([dict(it, generation_prompts=[]) for it in json.load(sys.stdin)[:60]]))' \
    <"$work/counterfact.json" >"$work/counterfact60.json"
  local way label
  for way in r-rome rome; do
    written "$way" "$work/counterfact.json" --method "$way" --layer 5
    label="${way/rome/ROME}, 200 facts one after another"
    row "$1" "$label" --ref "$way" --dataset "$work/counterfact60.json"
    row "$1" "$label" --ref "$way" --texts "$data/me_ppl_2k.json" --limit 100
    row "$1" "$label" --ref "$way" --downstream "$data"/downstream/{sst2,cola,rte,mmlu}.json --limit 50
  done
}

# With five contexts, a third of the time of the published twenty-one.
long() {
  printf '%s\n' "{}" "'s a great tool. {}" "- earthen and glass. {}" "-_10. {}" "-_nth. {}" >"$work/contexts.txt"
  written long "$data/counterfact_full_600.json" --method r-rome --layer 5 --contexts "$work/contexts.txt"
  asked_along "$1" long r-ROME
}

layers() {
  # The facts that the model answers, traced, and edited one at a time in seven layers each.
  local facts=$work/known.jsonl layer
  p eval --dataset "$data/counterfact_full_600.json" --ref v0 --known-only greedy --no-generation \
    --save "$facts" --averages >&2
  p trace --facts "$facts" --ref v0 --kinds mlp --samples 4 --json >"$work/known-mlp.jsonl"
  for layer in 2 5 8 12 16 20 25; do
    p stats collect --corpus "$data/corpus_1k_texts.json" --layers "$layer" >&2
    row "$1" "layer $layer" --dataset "$facts" --ref v0 --edit-each --method rome --layer "$layer" --no-generation
    python3 - "$work/known-mlp.jsonl" "$layer" >>"$1" <<'PYTHON'
import json, statistics, sys
layer, effects = int(sys.argv[2]), []
for grid in map(json.loads, open(sys.argv[1])):
    if grid.get("low") is not None:
        last = grid["subject_range"][1] - 1
        effects.append(grid["scores"][last][layer] - grid["low"])
mean = statistics.fmean(effects)
half = 1.96 * statistics.stdev(effects) / len(effects) ** 0.5
print(json.dumps({"row": f"layer {layer}", "measure": "MLP effect", "records": len(effects),
                  "measured": {"mean": mean, "interval": [mean - half, mean + half]}}))
PYTHON
  done
}

for table in "${tables[@]}"; do
  began=$SECONDS
  : >"$work/$table.jsonl"
  "$table" "$work/$table.jsonl"
  mv "$work/$table.jsonl" "$out/$table.jsonl"
  echo "results: $table took $((SECONDS - began)) s" >&2
done
