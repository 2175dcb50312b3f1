#!/usr/bin/env bash
# Makes the virtual environment that the peers run in, outside the repository, and prints its path.
# Where: $ESPALIER_PEERS, else espalier-peers in the user's cache folder.
set -euo pipefail
target="${ESPALIER_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/espalier-peers}"
if [ ! -x "$target/bin/python" ]; then
  python3 -m venv "$target" >&2
fi
"$target/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 onnxruntime==1.32.0 onnx==1.23.2 numpy pyarrow pillow >&2
echo "$target"
