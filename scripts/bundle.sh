#!/usr/bin/env bash
# Tests and times the kernels on this machine's GPU: bash run.sh test|bench|all OUTDIR
#
# test: every kernel's cases against float64 (kernels.jsonl), every operator as a program and its gradient in 32 and 16 bits,
# small networks in 16 (ops.log, half.log, mixed.log), reference networks (parity.log), and, where compute-sanitizer is
# installed, a small sweep under each of its tools (sanitizer.log). bench: kernels beside PyTorch where python3 has it
# (bench.jsonl, bench.md). Ends with a short table in OUTDIR/summary.txt, and with 1 where anything failed; where no GPU can
# be used it says why, and ends with 3.
set -uo pipefail
usage='usage: bash run.sh test|bench|all OUTDIR'
what=${1:?$usage}
case $what in
  test | bench | all) ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
mkdir -p "${2:?$usage}" && out=$(cd "$2" && pwd)
cd "$(dirname "$0")" || exit 1
summary=$out/summary.txt
status=0
: > "$summary"

# Adds a line to the summary: what, and how it ended.
note() { printf '%-28s %s\n' "$1" "$2" | tee -a "$summary"; }
judge() { if [ "$2" -eq 0 ]; then note "$1" "$3"; else note "$1" "FAILED: $3"; status=1; fi; }

tests() {
  : > "$out/kernels.jsonl"
  for program in kernels/*; do
    timeout 120 "$program" > "$out/case.jsonl" 2> "$out/case.log"
    local code=$? name=${program##*/}
    sed "s/^{/{\"program\":\"$name\",/" "$out/case.jsonl" >> "$out/kernels.jsonl"
    cat "$out/case.log" >&2
    judge "kernels/$name" $code "$(grep -c '"ok":true' "$out/case.jsonl") passed, $(grep -c '"ok":false' "$out/case.jsonl") failed"
  done
  rm -f "$out"/case.*
  for name in ops half mixed; do
    REFL_TEST_DEVICE=cuda:0 timeout 300 ./node "test/emu/$name.test.js" > "$out/$name.log" 2>&1
    judge "programs/$name" $? "$(grep -E '^ *(Passed|Skipped):' "$out/$name.log" | tr -s ' \n' ' ')"
  done
  if [ -d golden ]; then
    timeout 300 ./node test/parity/main.js --device cuda:0 golden/*.safetensors > "$out/parity.log" 2>&1
    judge parity $? "$(tail -n 1 "$out/parity.log")"
  fi
  if command -v compute-sanitizer > /dev/null; then
    : > "$out/sanitizer.log"
    # Those that share memory in the most ways.
    for tool in memcheck racecheck initcheck synccheck; do
      for name in gemmMma gemmF32 conv2dMma attention groupNorm softmax hopper; do
        timeout 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "kernels/$name" --shard 0/16 >> "$out/sanitizer.log" 2>&1
        judge "$tool $name" $? "$(grep SUMMARY "$out/sanitizer.log" | tail -n 1 | sed 's/=* //')"
      done
    done
  else
    note sanitizer 'compute-sanitizer is not installed'
  fi
}

bench() {
  ./node bench/cuda/main.js build-cuda/operators --json "$out/bench.jsonl" > "$out/bench.md" 2> "$out/bench.log"
  judge bench $? "$(grep -c '"kernel"' "$out/bench.jsonl") operators, see bench.md"
}

# Why no program can run on a GPU here, or nothing.
why=$(./node --input-type=module -e "import { cudaState } from './lib/runtime/cuda.js'; console.log(cudaState().reason)" 2>&1)
if [ -n "$why" ]; then
  note device "$why"
  exit 3
fi
[ "$what" = bench ] || tests
[ "$what" = test ] || bench
exit $status
