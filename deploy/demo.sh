#!/usr/bin/env bash
# Shows Palimpsest at work on this machine: a coordinator and two workers trace where a small real
# model keeps a dozen well-known facts, then one of them is rewritten and taken back. Everything it
# makes is in target/demo, and everything it starts is stopped. The first run downloads and builds,
# which takes a while.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n=== %s ===\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }

say "setting up"
deploy/setup.sh

say "building"
cargo build --release --locked
palimpsest=${CARGO_TARGET_DIR:-target}/release/palimpsest

demo=target/demo
rm -rf "$demo"
mkdir -p "$demo"

started=()   # the coordinator first
stop() {
  # The coordinator last: clients and workers take their leave of it.
  if [ ${#started[@]} -gt 1 ]; then
    kill "${started[@]:1}" 2>/dev/null || true
    wait "${started[@]:1}" 2>/dev/null || true
  fi
  if [ ${#started[@]} -gt 0 ]; then
    kill "${started[0]}" 2>/dev/null || true
    wait "${started[0]}" 2>/dev/null || true
  fi
}
trap stop EXIT
trap 'echo "demo: stopping" >&2; exit 130' INT TERM

# run ARGUMENT...: a command of the program. In the background, because a shell that waits for a
# command in the foreground does not hear that it is to stop.
run() {
  local status=0
  "$palimpsest" "$@" &
  started+=($!)
  wait $! || status=$?
  unset 'started[-1]'
  return $status
}

say "starting a coordinator and two workers"
"$palimpsest" serve --listen 127.0.0.1:0 --store "$demo/store" --port-file "$demo/address" \
  >"$demo/coordinator.log" 2>&1 &
started+=($!)
for _ in $(seq 300); do
  [ -s "$demo/address" ] && break
  kill -0 "${started[0]}" 2>/dev/null || break
  sleep 0.1
done
[ -s "$demo/address" ] || die "the coordinator does not serve: $(tail -n 3 "$demo/coordinator.log")"
server=http://$(cat "$demo/address")
export PALIMPSEST__CLIENT__SERVER=$server

# Half of the machine each.
threads=$(($(nproc) / 2))
[ "$threads" -ge 1 ] || threads=1
for name in worker-1 worker-2; do
  "$palimpsest" worker --coordinator "$server" --id "$name" --threads "$threads" \
    --cache "$demo/$name" >"$demo/$name.log" 2>&1 &
  started+=($!)
done

say "importing the model"
run model import .deps/SmolLM2-135M-Instruct.Q4_1.gguf --name smollm2

say "tracing the facts of deploy/demo_facts.json"
run trace --facts deploy/demo_facts.json --model smollm2 --samples 5 \
  --json --svg "$demo/figures" >"$demo/results.jsonl" ||
  die "the sweep did not end well: see $demo/*.log"
run status
sweep=$("$palimpsest" job list --json | sed -n '1s/.*"jobs\/\([^"]*\)".*/\1/p')

say "the same facts corrupted by another fact's prompt instead of noise"
run trace --facts deploy/demo_facts.json --model smollm2 --corrupt counterfactual \
  --metrics probability,logit_difference --averages

say "rewriting a fact: the Eiffel Tower is to be in Rome"
tower="The Eiffel Tower is located in the city of"
louvre="The Louvre is located in the city of"
complete() { run generate "$1" --model smollm2 --ref "$2" --max-tokens 6; }
run stats collect --model smollm2 --self-sample 8000 --layers 5
run edit "{} is located in the city of" --subject "The Eiffel Tower" --target Rome --true Paris --model smollm2 \
  --paraphrase "The Eiffel Tower can be found in the city of" --neighbour "$louvre" --min-efficacy 0.9 --why "the demo"
echo "before:"; complete "$tower" v0; complete "$louvre" v0
echo "after:"; complete "$tower" main; complete "$louvre" main

say "taking it back"
run log --model smollm2
run rollback --to v0 --model smollm2 --why "the demo is over"
echo "now:"; complete "$tower" main
run audit verify

say "what came out of the sweep: figures in $demo/figures, numbers in $demo/results.jsonl"
run job results "$sweep"

# The coordinator of this script ends with it; its store stays, and a console brings its own.
say "to look at all of this in a browser, and go on with it"
echo "$palimpsest console --store $demo/store"
