#!/usr/bin/env bash
# Runs small tests of the tensor crate under Miri, which finds undefined behaviour that no load or store shows: pointers that
# leave their allocation, references that alias, values that are none. Miri shows the program a processor without vector
# instructions, so it sees the kernels' portable paths; scripts/valgrind.sh sees AVX2, at the level of loads and stores.
#
#   scripts/miri.sh [TEST FILTER...]
#
# Needs a nightly toolchain with the components miri and rust-src. Absent: exit code 77.
set -euo pipefail
cd "$(dirname "$0")/.."

toolchain="${MIRI_TOOLCHAIN:-nightly}"
if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
  echo "Miri is not installed: rustup component add --toolchain $toolchain miri rust-src" >&2
  exit 77
fi
# Files with `unsafe`, through tests small enough to be interpreted.
filters=("$@")
if [ ${#filters[@]} = 0 ]; then
  filters=(kernels::simd kernels::product kernels::transpose kernels::conv::tests window:: fake_quant::tests::gradients pool::tests::averages)
fi
# Tests ask for the number of processors; the pool of threads lives to the end, and its queues keep to the rules of trees alone.
export MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance"
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=true RAYON_NUM_THREADS=2
cargo "+$toolchain" miri test -p espalier-tensor --lib -- --test-threads=1 "${filters[@]}"
