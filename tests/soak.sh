#!/usr/bin/env bash
# Wears one store for hours: sweeps, edits, rollbacks and evaluations of a tiny model, while whatever
# runs is killed at any moment, disks are full, certificates expire and workers come and go.
#
#   tests/soak.sh HOURS [--bucket] [--seed N] [--folder FOLDER]
#
#   HOURS      how long, also 0.5
#   --bucket   with the log in a bucket (moto) and two coordinators, one of which leads
#   --seed N   draws the same again, as far as time allows
#   --folder   where everything is (target/soak); the store is on a disk of its own there, which can
#              be filled, where this is run as root
#
# PALIMPSEST_PROGRAM is the program (target/release/palimpsest, or the one of target/debug). With
# Debian's libfaketime installed the coordinators' clocks jump as well; the simulation has that in
# any case (tests/simulation). In the folder there are then measures.csv, soak.svg (memory,
# descriptors, disk over time) and findings.txt; the status is 1 if anything was found.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n 's/^#   //p' "$0" >&2; exit 2; }

program=${PALIMPSEST_PROGRAM-}
for built in target/release/palimpsest target/debug/palimpsest; do
  [ -n "$program" ] || [ ! -x "$built" ] || program=$built
done
[ -x "$program" ] || { echo "soak: no program: cargo build --release" >&2; exit 1; }
[ -x .deps/python/bin/python ] || { echo "soak: no .deps/python: run deploy/setup.sh" >&2; exit 1; }
export OMP_WAIT_POLICY=PASSIVE
exec .deps/python/bin/python -B tests/soak "$program" "$@"
