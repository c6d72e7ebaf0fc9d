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
set -euo pipefail
cd "$(dirname "$0")/.."

server=yes try=no
for option in "$@"; do
  case "$option" in
    --client) server=no ;;
    --try) try=yes ;;
    *) echo "usage: deploy/wheel.sh [--client | --try]" >&2; exit 2 ;;
  esac
done
python=${PYTHON:-.deps/python/bin/python}
[ -x "$python" ] || { echo "wheel: no $python: run deploy/setup.sh, or set PYTHON" >&2; exit 1; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
wheels=$PWD/target/wheels
mkdir -p "$wheels"

# The same bytes whenever it is made: no time of today goes in, and no cache of Python's.
export SOURCE_DATE_EPOCH=315532800
rm -f "$wheels"/palimpsest_lm-*.whl
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" ./src/python

if [ $server = yes ]; then
  # The wheel's program looks for libtorch where pip puts torch. By RPATH: by RUNPATH, libraries of
  # LD_LIBRARY_PATH would go before it, and those of another libtorch among them.
  # shellcheck disable=SC2016 # the loader's word, not the shell's
  PALIMPSEST_RPATH='$ORIGIN/../../torch/lib' cargo build --release --locked --bin palimpsest
  stripped=$(mktemp)
  trap 'rm -f "$stripped"' EXIT
  strip -o "$stripped" target/release/palimpsest
  rm -f "$wheels"/palimpsest_lm_server-*.whl
  "$python" src/python/server/pack.py "$stripped" "$version" "$wheels" >/dev/null
fi
(cd "$wheels" && sha256sum palimpsest_lm*.whl)

if [ $try = yes ]; then
  room=$(mktemp -d)
  trap 'rm -rf "$stripped" "$room"' EXIT
  "$python" -m venv "$room/venv"
  pip=("$room/venv/bin/python" -m pip --quiet --disable-pip-version-check install)
  site=$("$room/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # What pip would have made of torch, as far as the program can tell.
  mkdir -p "$site/torch" "$site/torch-2.13.0.dist-info"
  ln -s "$(readlink -f .deps/libtorch/lib)" "$site/torch/lib"
  printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n' >"$site/torch-2.13.0.dist-info/METADATA"
  : >"$site/torch-2.13.0.dist-info/RECORD"
  "${pip[@]}" --find-links "$wheels" "palimpsest-lm[server]==$version"
  export HOME=$room PATH=$room/venv/bin:$PATH
  cd "$room"
  palimpsest --version
  palimpsest doctor
  python - "$OLDPWD/tests/fixtures/llama" <<'EOF'
import sys
import palimpsest as pal

with pal.connect() as p:
    prompt, subject = "The Eiffel Tower is located in the city of", "The Eiffel Tower"
    sweep = p.import_model(sys.argv[1], "tiny").trace(prompt, subject=subject, samples=2)
    print(sweep.grid(kind="mlp"))
EOF
fi
