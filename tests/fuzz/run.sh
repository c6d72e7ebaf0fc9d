#!/usr/bin/env bash
# Lets libFuzzer look for bytes that a parser cannot bear:
#
#   tests/fuzz/run.sh SECONDS [TARGET...]     each target for so long; all of them if none is named
#
# A target that found something is left at that, the others still run, and the status is 1.
# Needs cargo-fuzz (`cargo install cargo-fuzz`) and a nightly toolchain. What it finds is kept in
# target/fuzz/found/TARGET: mend the parser, then move the file to tests/fuzz/corpus/TARGET, over
# which `cargo test --test fuzz` goes from then on.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:?seconds}; shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls tests/fuzz/targets | sed 's/\.rs$//')

export TMPDIR=/dev/shm   # every input of a file's parser is a file
FUZZ_SEEDS=$PWD/target/fuzz/seeds cargo test --quiet --no-default-features --test fuzz -- --ignored --exact seeds_are_written
export CARGO_TARGET_DIR=$PWD/target/fuzz
failed=()
for target in "${targets[@]}"; do
  found=target/fuzz/found/$target
  mkdir -p "$found" "target/fuzz/corpus/$target" "tests/fuzz/corpus/$target"
  echo "=== $target"
  # A parser may take 2 GiB and 10 s for an input of at most 1 MiB.
  cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" \
    "target/fuzz/corpus/$target" "target/fuzz/seeds/$target" "tests/fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=1048576 -rss_limit_mb=2048 -timeout=10 \
    -artifact_prefix="$found/" -print_final_stats=1 -verbosity=0 || failed+=("$target")
done
[ ${#failed[@]} = 0 ] || { echo "found something: ${failed[*]}, in target/fuzz/found"; exit 1; }
