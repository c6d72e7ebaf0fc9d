#!/usr/bin/env bash
# Tries the program on a machine with a GPU that has PyTorch and nothing else, by one archive:
#
#   deploy/gpu/check.sh pack [FILE]         here: the program, this script and a small model in one file
#                                           (target/palimpsest-check.tar.xz)
#   check.sh run [DEVICE [REPORT]]          there, where FILE was unpacked: on cuda:0 unless DEVICE names
#                                           another; writes REPORT (report.txt), which says at its end
#                                           what failed, and ends with 1 where something did
#
# The program runs on the libtorch of that machine's PyTorch, which must be of the release that it was
# built for (deploy/setup.sh says which). PROGRAM names one that was built for another: tch and torch-sys
# 0.24 in Cargo.toml are for PyTorch 2.11, with LIBTORCH set to the torch folder of a Python that has it.
set -euo pipefail
most=60000000   # bytes of the archive
room=$(mktemp -d)
pids=()
trap clean_up EXIT

# Waits for what it started, and not for what writes the report, which ends when this script does.
clean_up() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
  done
  rm -rf "$room"
}

pack() {
  cd "$(dirname "$0")/../.."
  local out=${1:-target/palimpsest-check.tar.xz} program=${PROGRAM:-target/release/palimpsest} folder size
  [ -x "$program" ] || { echo "check: no $program: cargo build --release" >&2; exit 1; }
  folder=$room/palimpsest-check
  mkdir -p "$folder/model" "$(dirname "$out")"
  strip -o "$folder/palimpsest" "$program"
  cp deploy/gpu/check.sh "$folder/"
  cp tests/fixtures/llama/{config.json,tokenizer.json,model.safetensors} "$folder/model/"
  tar -C "$room" -cJf "$out" palimpsest-check
  size=$(stat -c %s "$out")
  [ "$size" -le $most ] || { echo "check: $out has $size bytes, $most at most" >&2; exit 1; }
  echo "$out: $size bytes"
}

# step WORDS COMMAND...: runs a command, and says how long it took and whether it failed.
step() {
  local words=$1 began=$EPOCHREALTIME rc=0
  shift
  printf '\n== %s ==\n' "$words"
  "$@" || rc=$?
  awk -v from="$began" -v to="$EPOCHREALTIME" 'BEGIN { printf "-- %.1f s\n", to - from }'
  if [ $rc != 0 ]; then
    echo "-- FAILED with $rc"
    failed+=("$words")
  fi
}

# The same facts on the device and on the CPU: the largest difference, which has to be small.
compared() {
  local device=$1 on
  for on in "$device" cpu; do
    "$program" trace --facts facts.json --model small --ref v0 --kinds hidden,mlp,attn,head --noise 0.3 --samples 4 \
      --no-cache --json --store "alone-$on" --device "$on" >"grids-$on.jsonl" || return 1
  done
  python3 - "grids-$device.jsonl" grids-cpu.jsonl <<'PYTHON'
import json, sys
read = lambda file: {(it["prompt"], it["kind"]): it["scores"] for it in map(json.loads, open(file)) if it.get("scores")}
one, other = map(read, sys.argv[1:])
flat = lambda it: [x for part in it for x in flat(part)] if isinstance(it, list) else [it]
worst = max(abs(x - y) for key in other for x, y in zip(flat(one[key]), flat(other[key])))
print(f"{len(one)} grids, largest difference {worst:.1e}")
sys.exit(one.keys() != other.keys() or not worst < 1e-4)
PYTHON
}

run() {
  local device=${1:-cuda:0} report
  report=$(realpath "${2:-report.txt}")
  here=$(cd "$(dirname "$0")" && pwd)
  program=$here/palimpsest
  failed=()
  cd "$room"
  exec > >(tee "$report") 2>&1
  export HOME=$room OMP_WAIT_POLICY=PASSIVE
  local torch
  torch=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
  LD_LIBRARY_PATH=$torch:$(find "$torch/../../nvidia" -maxdepth 3 -name lib -type d 2>/dev/null | tr '\n' ':')
  export LD_LIBRARY_PATH
  python3 - <<'PYTHON'
import json, platform, torch
cuda = torch.cuda.is_available()
print("PyTorch", torch.__version__, "on", torch.cuda.get_device_name(0) if cuda else "no GPU", "-", platform.platform())
facts = [("The tower is in the city of", "The tower"), ("A river runs through", "A river"), ("The mother tongue of Ada is", "Ada"),
         ("The old bridge was built in", "The old bridge")]
json.dump([{"prompt": prompt, "subject": subject} for prompt, subject in facts], open("facts.json", "w"))
json.dump([{"case_id": n, "requested_rewrite": {"prompt": prompt.replace(subject, "{}"), "subject": subject,
           "target_new": {"str": "Rome"}, "target_true": {"str": "Paris"}}} for n, (prompt, subject) in enumerate(facts)],
          open("edits.json", "w"))
PYTHON
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true
  "$program" --version

  step "the device against the CPU and against other ways, and its speed" "$program" doctor --bench --device "$device"

  local on
  for on in "$device" cpu; do
    "$program" model import "$here/model" --name small --store "alone-$on" >/dev/null
  done
  step "grids on the device and on the CPU" compared "$device"

  "$program" serve --listen 127.0.0.1:0 --store store --port-file address >coordinator.log 2>&1 &
  pids+=($!)
  until [ -s address ]; do kill -0 "${pids[0]}"; sleep 0.1; done
  PALIMPSEST__CLIENT__SERVER=http://$(cat address)
  export PALIMPSEST__CLIENT__SERVER
  for on in 1 2; do
    "$program" worker --coordinator "$PALIMPSEST__CLIENT__SERVER" --id "worker-$on" --device "$device" --cache "cache-$on" \
      >"worker-$on.log" 2>&1 &
    pids+=($!)
  done
  step "two workers on $device" connected
  [[ ${failed[*]} == *"two workers"* ]] || with_workers

  printf '\n'
  if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    tail -n 5 ./*.log
    exit 1
  fi
  echo "everything passed on $device"
}

# Waits for both workers: one that cannot use its device ends.
connected() {
  for _ in {1..120}; do
    [ "$("$program" worker list --json | wc -l)" != 2 ] || return 0
    sleep 0.5
  done
  return 1
}

with_workers() {
  "$program" model import "$here/model" --name small >/dev/null
  step "a sweep with two workers" "$program" trace --facts facts.json --kinds hidden,mlp,attn --noise 0.3 --samples 4
  step "key statistics" "$program" stats collect --self-sample 4000 --layers 0-1
  step "an edit" "$program" edit "{} is in the city of" --subject "The tower" --target Rome --true Paris --layer 1 --set steps=5
  step "many edits at once" "$program" edit --file edits.json --method memit --layers 0-1 --set steps=5
  step "all of it taken back" "$program" rollback --to v0
  step "the proved log" "$program" audit verify
  step "what the workers were" "$program" worker list
}

case "${1:-}" in
  pack) shift; pack "$@" ;;
  run) shift; run "$@" ;;
  *) sed -n '2,13p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
esac
