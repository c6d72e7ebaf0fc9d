#!/usr/bin/env bash
# Makes what a release consists of, in target/dist:
#
#   palimpsest_lm-*.whl, palimpsest_lm_server-*.whl   by deploy/wheel.sh
#   palimpsest-VERSION-x86_64-linux.tar.xz            the program without libtorch, static: any Linux
#   palimpsest_VERSION_amd64.deb                      the same, with a coordinator's unit
#   SHA256SUMS                                        of all of them
#
#   deploy/release.sh             all
#   deploy/release.sh --static    tarball and Debian package alone
#   deploy/release.sh --try       what was made, then installed and run: the wheels in a fresh virtual
#                                 environment, tarball and package in empty roots (root, or user
#                                 namespaces, are needed for those)
#   deploy/release.sh --try-only  what target/dist holds already, tried
#
# The static program coordinates, asks and shows; workers need libtorch, so they come from the wheel.
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=yes try=no make=yes
for option in "$@"; do
  case "$option" in
    --static) wheels=no ;;
    --try) try=yes ;;
    --try-only) try=yes make=no ;;
    *) echo "usage: deploy/release.sh [--static] [--try | --try-only]" >&2; exit 2 ;;
  esac
done

say() { echo "release: $*"; }
die() { echo "release: $*" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
about=$(sed -n 's/^description = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
summary=${about%%:*} summary=${summary#A }   # a package's has no article
built=${CARGO_TARGET_DIR:-target}
dist=$PWD/target/dist
folder=palimpsest-$version-x86_64-linux
tarball=$dist/$folder.tar.xz package=$dist/palimpsest_${version}_amd64.deb
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

# The same bytes whenever it is made: no time of today goes in.
export SOURCE_DATE_EPOCH=315532800
umask 022
PATH=$PATH:/usr/sbin:/sbin   # where chroot is, and what dpkg asks for

# pack PROGRAM: the tarball and the package of it.
pack() {
  local at=$room/$folder deb=$room/deb shared=$room/shared
  mkdir -p "$at/man" "$at/completions" "$at/systemd"
  strip -o "$at/palimpsest" "$1"
  chmod 755 "$at/palimpsest"
  "$at/palimpsest" man "$at/man"
  for shell in bash zsh fish; do
    "$at/palimpsest" completions "$shell" >"$at/completions/palimpsest.$shell"
  done
  cp deploy/systemd/palimpsest-coordinator.service "$at/systemd/"
  cp LICENSE-APACHE LICENSE-MIT README.md "$at/"
  tar -C "$room" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    -c "$folder" | xz -9 -T1 >"$tarball"

  shared=$deb/usr/share
  mkdir -p "$deb/DEBIAN" "$deb/usr/bin" "$deb/usr/lib/systemd/system" "$shared/man/man1" \
    "$shared/bash-completion/completions" "$shared/zsh/vendor-completions" \
    "$shared/fish/vendor_completions.d" "$shared/doc/palimpsest"
  cp "$at/palimpsest" "$deb/usr/bin/"
  sed 's|/usr/local/bin/|/usr/bin/|' "$at/systemd/palimpsest-coordinator.service" \
    >"$deb/usr/lib/systemd/system/palimpsest-coordinator.service"
  cp "$at"/man/* "$shared/man/man1/"
  gzip -9 -n "$shared"/man/man1/*
  cp "$at/completions/palimpsest.bash" "$shared/bash-completion/completions/palimpsest"
  cp "$at/completions/palimpsest.zsh" "$shared/zsh/vendor-completions/_palimpsest"
  cp "$at/completions/palimpsest.fish" "$shared/fish/vendor_completions.d/"
  { printf 'Palimpsest is under the MIT licence or the Apache License 2.0, as you like.\n'
    printf 'The latter is in /usr/share/common-licenses/Apache-2.0; the former:\n\n'
    cat LICENSE-MIT; } >"$shared/doc/palimpsest/copyright"
  gzip -9 -n <README.md >"$shared/doc/palimpsest/README.md.gz"
  cat >"$deb/DEBIAN/control" <<CONTROL
Package: palimpsest
Version: $version
Architecture: amd64
Maintainer: The Palimpsest authors <palimpsest@localhost>
Installed-Size: $(du -sk --apparent-size "$deb/usr" | cut -f 1)
Section: science
Priority: optional
Description: $summary
 Traces where a language model keeps a fact, rewrites it, and keeps every
 version, so that each edit can be taken back.
 .
 This is the coordinator and the command line, as one static program. The
 coordinator is not started: systemctl enable --now palimpsest-coordinator.
 Workers need libtorch: pip install "palimpsest-lm[server]" where they run.
CONTROL
  # A coordinator whose program goes would run on until the machine is started anew. DPKG_ROOT: the
  # package is in the root of another machine, whose services do not run.
  cat >"$deb/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
  systemctl disable --quiet --now palimpsest-coordinator.service || true
fi
PRERM
  chmod 755 "$deb/DEBIAN/prerm"
  dpkg-deb --build --root-owner-group -Zxz "$deb" "$package" >/dev/null
}

if [ $make = yes ]; then
  deploy/console.sh   # a program without its console's pages is not released
  rm -rf "$dist"   # of another version, or left by a run that was stopped
  mkdir -p "$dist"
  if [ $wheels = yes ]; then
    deploy/wheel.sh >/dev/null
    cp "target/wheels/palimpsest_lm-$version-"*.whl "target/wheels/palimpsest_lm_server-$version-"*.whl "$dist/"
  fi
  # With a target named, the flag is for the program alone: build scripts and macros stay dynamic.
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --no-default-features \
    --target x86_64-unknown-linux-gnu --bin palimpsest
  program=$built/x86_64-unknown-linux-gnu/release/palimpsest
  if readelf --program-headers "$program" | grep -q INTERP; then
    die "$program asks for a loader: it is not static"
  fi
  pack "$program"
  (cd "$dist" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | LC_ALL=C sort |
    xargs sha256sum >SHA256SUMS)
  (cd "$dist" && ls -l --time-style=+ && cat SHA256SUMS)
fi
[ $try = yes ] || exit 0

(cd "$dist" && sha256sum --check --quiet --strict SHA256SUMS)

# Roots that are seen by one program alone: for root, or in a namespace of one's own. "${within[@]}"
# ROOT PROGRAM... runs a program that sees nothing but that folder, and in it random numbers.
root_of=()
[ "$(id -u)" = 0 ] || root_of=(unshare --map-root-user)
# shellcheck disable=SC2016 # for the inner shell
within=(env -i HOME=/data PATH="$PATH" PALIMPSEST__CLIENT__SERVER=http://127.0.0.1:17461
  "${root_of[@]}" unshare --mount
  sh -c 'for it in random urandom; do mount --bind "/dev/$it" "$0/dev/$it" || exit; done
    exec chroot "$0" "$@"')

# serves ROOT PROGRAM: a coordinator comes up in that root, answers, and ends on a signal.
serves() {
  local root=$1 program=$2 coordinator answer
  mkdir -p "$root/dev" "$root/etc" "$root/tmp" "$root/data"
  : >"$root/dev/random"; : >"$root/dev/urandom"
  echo "127.0.0.1 localhost" >"$root/etc/hosts"
  "${within[@]}" "$root" "$program" --version
  "${within[@]}" "$root" "$program" serve --listen 127.0.0.1:17461 --store /data/store >"$root/said" 2>&1 &
  coordinator=$!
  answer=
  for _ in $(seq 100); do
    answer=$("${within[@]}" "$root" "$program" status 2>"$root/complained") && break
    kill -0 "$coordinator" 2>/dev/null || break
    sleep 0.1
  done
  kill "$coordinator" 2>/dev/null || true
  wait "$coordinator" || true
  [ -n "$answer" ] || { cat "$root/said" "$root/complained" >&2; die "no coordinator came up in the empty root"; }
  [ -d "$root/data/store" ] || die "the coordinator kept nothing in its store"
}

if "${root_of[@]}" unshare --mount true 2>/dev/null; then
  mkdir -p "$room/tarball"
  tar -C "$room/tarball" -xf "$tarball"
  serves "$room/tarball" "/$folder/palimpsest"
  say "the tarball's program served and answered in an empty root"

  root=$room/debian
  mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/triggers"
  : >"$root/var/lib/dpkg/status"; : >"$root/var/lib/dpkg/available"
  # Its script runs outside of that root, where there is a shell.
  pkg=("${root_of[@]}" dpkg --root="$root" --force-not-root --force-script-chrootless --log=/dev/null)
  "${pkg[@]}" --install "$package" >/dev/null
  serves "$root" /usr/bin/palimpsest
  "${pkg[@]}" --listfiles palimpsest | grep -q '/usr/share/man/man1/palimpsest.1.gz' ||
    die "the package has no manual"
  if command -v systemd-analyze >/dev/null; then
    # It wants to find the program, which is in the other root.
    sed "s|/usr/bin/palimpsest|$root/usr/bin/palimpsest|" \
      "$root/usr/lib/systemd/system/palimpsest-coordinator.service" >"$room/palimpsest-coordinator.service"
    systemd-analyze verify "$room/palimpsest-coordinator.service"
  fi
  "${pkg[@]}" --purge palimpsest >/dev/null
  left=$(find "$root" -mindepth 1 -name '*palimpsest*' ! -path "$root/var/lib/dpkg/*" ! -path "$root/data/*")
  [ -z "$left" ] || die "purging the package leaves $left"
  [ -d "$root/data/store" ] || die "purging the package took the store along"
  say "the Debian package was installed, served and answered, and purged; the store stayed"
else
  say "tarball and package are not tried: neither root nor user namespaces"
fi

if ls "$dist"/*.whl >/dev/null 2>&1; then
  mkdir -p target/wheels
  cp "$dist"/*.whl target/wheels/
  deploy/wheel.sh --try-only
  say "the wheels were installed in a fresh environment; doctor and a trace ran"
fi
