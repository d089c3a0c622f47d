#!/usr/bin/env bash
# Everything that needs a CUDA device, in about three minutes: build of the native operations, reenactment benchmark, tests,
# benchmarks of the operations, compute-sanitizer. A part that fails or takes too long does not stop the others. Logs and
# JSON files go to $OUT (gpu-checks by default); a table comes last. Run from the repository root:
#
#   PYTHON=.venv/bin/python LIMIT=200 bash benchmarks/gpu_checks.sh [part ...]
#
# LIMIT: seconds for everything; parts that no longer fit are left out.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu-checks}
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-600}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PORTRAIT4D_NATIVE=1
PATH=$("$PYTHON" -c 'import os, sys; print(os.path.dirname(sys.executable))'):$PATH:/usr/local/cuda/bin  # ninja, nvcc
mkdir -p "$OUT"
wanted=" $* "
summary=()
failed=0

# part NAME SECONDS COMMAND...: runs a command with a limit and notes how it ended
part() {
  local name=$1 limit=$2 started=$SECONDS status
  shift 2
  [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
  ((limit > LIMIT - SECONDS)) && limit=$((LIMIT - SECONDS))
  if ((limit < 5)); then
    summary+=("$(printf '%-12s         left out' "$name")")
    return
  fi
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  status=$?
  case $status in
    0) status=ok ;;
    124 | 137) status="stopped after $limit s" ;;
    *) status="FAILED ($status)" ;;
  esac
  [[ $status == ok ]] || failed=1
  summary+=("$(printf '%-12s %5d s  %-18s %s' "$name" $((SECONDS - started)) "$status" "$(tail -n 1 "$OUT/$name.log" | cut -c 1-100)")")
}

tests="tests/unit/inference/test_frame_graph.py $(grep -rlE 'mark\.gpu|DEVICES' tests/unit --include='test_*.py' | grep -v test_frame_graph | sort | tr '\n' ' ')"
kernels="tests/unit/ops/test_native_ops.py tests/unit/ops/test_triplane_render.py"
pytest="$PYTHON -m pytest -q -p no:cacheprovider -m gpu --tb=short"

part device 20 nvidia-smi
part build 120 "$PYTHON" -c 'import sys, logging, torch; from portrait4d.ops import backend
logging.basicConfig(level=logging.INFO)
built = backend.build_native()
print(torch.__version__, torch.cuda.get_device_name(), backend.library_path(), "built" if built else "NOT built")
sys.exit(not built)'
part reenact 100 "$PYTHON" benchmarks/bench_reenact.py --device cuda --rounds 2 --json "$OUT/reenact.json" --profile "$OUT/reenact-kernels.txt"
part tests 70 $pytest $tests
part render 30 "$PYTHON" benchmarks/bench_triplane_render.py --device cuda --json "$OUT/render.json"
part nearest 20 "$PYTHON" benchmarks/bench_nearest_triangle.py --device cuda --rounds 5 --json "$OUT/nearest.json"
part rasterize 20 "$PYTHON" benchmarks/bench_rasterize.py --device cuda --rounds 5 --json "$OUT/rasterize.json"
# Without the caching allocator every tensor has borders that can be overstepped.
part sanitizer 70 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9 \
  $pytest -k "fetch or march or nearest or rasterize or any_number_of_rays or odd_sizes" $kernels

for name in reenact render nearest rasterize; do
  [[ -s $OUT/$name.log ]] && { echo "== $name"; tail -n 90 "$OUT/$name.log"; }
done
for name in build tests sanitizer; do
  [[ -s $OUT/$name.log ]] && { echo "== $name"; grep -E '^(FAILED|ERROR|E  )|=========|error|built|passed|failed' "$OUT/$name.log" | cut -c 1-160 | head -n 40; }
done
echo "== summary"
((${#summary[@]})) && printf '%s\n' "${summary[@]}"
exit $failed
