#!/usr/bin/env bash
# Everything a change must pass, from a fresh clone on. Stops at the first stage that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

stage() { printf '\n=== %s ===\n' "$*"; }

stage setup
# Slurm and Chromium where their packages can be installed: their tests are skipped elsewhere, with a
# message.
# What the set-up brought is required: a test that would skip itself for the lack of it fails.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  deploy/setup.sh --slurm --console
  export PALIMPSEST_REQUIRE=slurm,lint,bucket,model,console
else
  deploy/setup.sh
  export PALIMPSEST_REQUIRE=lint,bucket,model
fi

stage format
cargo fmt --check

# --locked: a dependency changed without its Cargo.lock fails here, not on somebody's machine.
stage lints
cargo clippy --locked --all-targets -- -D warnings

stage "lints without the engine"
cargo clippy --locked --all-targets --no-default-features -- -D warnings

stage documentation
RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

stage "examples in the documentation"
cargo test --locked --doc

# Its tests start the program themselves: a coordinator, a worker, and a tiny model.
stage "the Python package"
cargo build --locked
(cd src/python && ../../.deps/package/bin/mypy --no-incremental)
if [ -x .deps/pyright/bin/pyright ]; then
  # Without a look for a newer one, which PyPI would be asked for.
  (cd src/python && PYRIGHT_PYTHON_IGNORE_WARNINGS=1 ../../.deps/pyright/bin/pyright \
    --pythonpath ../../.deps/package/bin/python --warnings)
else
  echo "skipped: no .deps/pyright: deploy/setup.sh could not install it"
fi
(cd src/python && ../../.deps/package/bin/python -m unittest)

# Last, so that the run closes on how many tests there were. All of them run, so that one run
# names all that fails.
stage tests
# Many tests wait most of their time, for a lease to end or for Slurm: more run than there are cores.
# Threads of libtorch that have nothing to do then sleep, and take nobody's core.
export OMP_WAIT_POLICY=PASSIVE
cargo nextest run --locked --no-fail-fast --test-threads $((2 * $(nproc)))

stage passed
