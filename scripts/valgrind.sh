#!/usr/bin/env bash
# Runs the tensor crate's kernel tests under valgrind's memcheck: an invalid read or write, a jump or a result that depends
# on memory nobody wrote, and a block that is definitely lost are errors, and any error fails the run.
#
#   scripts/valgrind.sh [TEST FILTER...]
#
# valgrind 3.19 runs AVX2 and FMA, not AVX-512: it shows the program a processor without. Absent valgrind: exit code 77.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
  echo "valgrind is not installed" >&2
  exit 77
fi
# Every file with `unsafe` in it or below it: the kernels and the operations that call them.
filters=("$@")
if [ ${#filters[@]} = 0 ]; then
  filters=(kernels:: attention:: conv:: matmul:: batch_norm:: fake_quant:: pool:: norm:: softmax:: loss:: optim:: recycle:: tape::)
fi
host="$(rustc -vV | sed -n 's/^host: //p')"
runner="CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER"
export "$runner=valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite"
# A test's threads run one at a time under valgrind; two are enough to cross chunk bounds.
export RAYON_NUM_THREADS=2
cargo test -p espalier-tensor --lib -- --test-threads=1 "${filters[@]}"
# Windows and shapes of every magnitude, fewer of them than outside.
if [ $# = 0 ]; then HOSTILE_CASES=300 cargo test -p espalier-tensor --test hostile_sizes -- --test-threads=1; fi
