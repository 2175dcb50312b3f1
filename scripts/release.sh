#!/usr/bin/env bash
# Builds the release program for this machine's platform and packs it with its licences, documents and shell completions:
# dist/espalier-VERSION-TARGET.tar.gz and its SHA-256 beside it.
# usage: scripts/release.sh [PROFILE]
set -euo pipefail
profile="${1:-release}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
target="$(rustc -vV | sed -n 's/^host: //p')"

# A release's results are addressed by its version, not by the hash of the program.
ESPALIER_RELEASE=1 cargo build --profile "$profile" --locked -p espalier-cli
built="${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")"
program="$built/espalier"
[ -e "$program" ] || program="$built/espalier.exe"

name="espalier-$version-$target"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name/completions" dist
cp "$program" LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$work/$name/"
cp -r docs "$work/$name/docs"
for shell in bash zsh fish powershell elvish; do
  "$program" completions "$shell" > "$work/$name/completions/espalier.$shell"
done
# The same files give the same archive.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" -cf - "$name" | gzip -n > "dist/$name.tar.gz"
(cd dist && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
echo "dist/$name.tar.gz"
