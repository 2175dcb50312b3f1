#!/usr/bin/env bash
# Fetches the ONNX Runtime shared library through pip into .espalier/onnxruntime/ of this repository (ignored by git)
# and prints the variable that points there. Python is needed for this step only, never afterwards.
# usage: scripts/fetch_onnxruntime.sh [VERSION]
set -euo pipefail
version="${1:-1.32.0}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
target="$root/.espalier/onnxruntime"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" "onnxruntime==$version"
python3 -m zipfile -e "$work"/onnxruntime-*.whl "$work/wheel"
mkdir -p "$target"
found=""
for library in "$work"/wheel/onnxruntime/capi/{libonnxruntime.so*,libonnxruntime*.dylib,onnxruntime.dll}; do
  [ -e "$library" ] || continue
  cp "$library" "$target/"
  found="$target/$(basename "$library")"
done
if [ -z "$found" ]; then
  echo "the onnxruntime $version wheel for this platform contains no shared library" >&2
  exit 1
fi
echo "ORT_DYLIB_PATH=$found"
