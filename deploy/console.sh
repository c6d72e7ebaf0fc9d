#!/usr/bin/env bash
# Builds the console's pages for 'cargo build' to embed: by npm, from the exact lock, in the user's
# cache, where the digest of their sources names them; linked into this checkout as .deps/console.
# Run again, it changes nothing. deploy/setup.sh runs it. Needs Node 18 or later and npm; where they
# are not, the program is built with a page that says so.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "console: $*"; }
die() { echo "console: $*" >&2; exit 1; }

console=src/web/console
[ -e $console/build.mjs ] || die "there is no $console/build.mjs: this checkout has no console"
{ command -v node && command -v npm; } >/dev/null ||
  die "Node or npm is missing: install them (Debian: nodejs npm), then run this again"
node -e 'process.exit(+process.versions.node.split(".")[0] < 18 ? 1 : 0)' ||
  die "Node $(node --version) is too old: install 18 or later, then run this again"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/palimpsest
mkdir -p "$cache" .deps
exec 8>"$cache/console.lock"
flock 8                                  # two clones may be built at once
rm -rf "$cache"/console-building.*       # left by a run that was killed
tmp=$(mktemp -d "$cache/console-building.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# digest FILE...: of their names and contents.
digest() { sha256sum "$@" | sha256sum | cut -c 1-16; }

# --- Packages ----------------------------------------------------------------------------------

lock=$console/package-lock.json
modules=$cache/console-packages-$(digest $lock)
if [ ! -d "$modules" ]; then
  say "installing the packages of $lock"
  mkdir "$tmp/packages"
  cp $console/package.json $lock "$tmp/packages/"
  [ ! -e $console/.npmrc ] || cp $console/.npmrc "$tmp/packages/"
  # No package runs anything of its own while it is installed.
  (cd "$tmp/packages" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) ||
    die "npm could not install the packages (above is what it said); nothing was changed"
  mv -T "$tmp/packages" "$modules"       # only whole folders get this name
fi
# A folder of somebody's own 'npm ci' is left as it is.
if [ -L $console/node_modules ] || [ ! -e $console/node_modules ]; then
  ln -sfn "$modules/node_modules" $console/node_modules
fi

# --- Pages -------------------------------------------------------------------------------------

# All that goes into them: sources, the contract, the guides.
mapfile -d '' sources < <(find $console src/guide src/python/palimpsest/contract.bin \
  \( -name node_modules -o -path $console/contract -o -path $console/dist -o -path $console/tests \) -prune \
  -o -type f -print0 2>/dev/null | LC_ALL=C sort -z)
pages=$cache/console-$(digest "${sources[@]}")
if [ ! -d "$pages" ]; then
  say "building the pages"
  (cd $console && node build.mjs "$tmp/pages") ||
    die "the pages could not be built (above is why); nothing was changed"
  mv -T "$tmp/pages" "$pages"
fi
# What the tests of the sources and an editor read, in a checkout whose pages another one built.
if [ ! -d $console/contract ] || [ "$(readlink .deps/console 2>/dev/null)" != "$pages" ]; then
  (cd $console && node build.mjs --contract)
fi
if [ "$(readlink .deps/console 2>/dev/null)" != "$pages" ]; then
  ln -sfn "$pages" .deps/console
  # cargo was told nothing of a link that was not there, so that it does not look each time.
  touch build.rs
fi
