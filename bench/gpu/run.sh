#!/usr/bin/env bash
# Tests and measures on a GPU machine what bench/gpu/pack.sh packed; needs no network and installs nothing.
#   bench/gpu/run.sh [--only tests|sanitize|bench] [--quick] [--seconds N] [--filter GTEST_FILTER] [--dry-run]
#                    [--pack FILE] [-- ARGUMENTS of bench/gpu/compare.py]
# Stages: every test program; compute-sanitizer (memcheck, racecheck) over the tests of
# kernels; the comparison with PyTorch. One that fails or takes too long doesn't stop the next. --seconds is for all of
# them (570). Results go to $OUT (bench/results/), logs to $OUT/logs (build-gpu/logs/). Ends with status 1 if a test
# failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

pack='build-gpu/pack/qtrain-gpu.tar.xz'
only=all
quick=
dry_run=
seconds=570
filter=
engine_filter='*Kernel*:*Cuda*:*Gpu*:*Device*:Map*:*Reduce*:Grouped*:Bordered*:Codes*:*Update*:BatchNorm*:*Pool*:CrossEntropy*:Arithmetic*:ActivationTest*'
quant_filter='Sat*:Lsq*:Dorefa*:Pact*:Uniform*:LqNets*:Fatnn*:Xnor*:*Fus*'
compare_arguments=()

usage() { sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
while (($#)); do
  case $1 in
    --quick) quick=1 ;;
    --dry-run) dry_run=1 ;;
    --only | --seconds | --filter | --pack)
      (($# > 1)) || usage
      case $1 in
        --only) only=$2 ;;
        --seconds) seconds=$2 ;;
        --filter) filter=$2 ;;
        --pack) pack=$2 ;;
      esac
      shift
      ;;
    --) shift; compare_arguments=("$@"); break ;;
    *) usage ;;
  esac
  shift
done
[[ $only =~ ^(all|tests|sanitize|bench)$ && $seconds =~ ^[0-9]+$ ]] || usage

results=${OUT:-bench/results}
logs=${OUT:-build-gpu}/logs
deadline=$((SECONDS + seconds))
failed=0

say() { printf '\n== %s\n' "$*"; }
# Seconds until the deadline, at most $1, at least 1.
left() {
  local rest=$((deadline - SECONDS))
  ((rest > $1)) && rest=$1
  echo $((rest > 1 ? rest : 1))
}
# Seconds for a part that may take 1/$1 of the time where all stages run, 1/$2 where only its own does.
portion() { if [[ $only == all ]]; then left $((seconds / $1)); else left $((seconds / $2)); fi; }
wanted() { [[ $only == all || $only == "$1" ]]; }

# --- where libraries are ------------------------------------------------------------------------------------------

# The library folders of NVIDIA's Python packages, then the toolkit's.
cuda_folders() {
  python3 - <<'PYTHON'
import glob
try:
    import nvidia
    for path in nvidia.__path__:
        for folder in sorted(glob.glob(f"{path}/*/lib")):
            print(folder)
except ImportError:
    pass
PYTHON
  local folder
  for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib; do
    [[ ! -d $folder ]] || echo "$folder"
  done
}

find_sanitizer() {
  local path
  for path in "$(command -v compute-sanitizer)" /usr/local/cuda/bin/compute-sanitizer \
    /usr/local/cuda/compute-sanitizer/compute-sanitizer \
    $(python3 -c 'import nvidia, glob; [print(f) for p in nvidia.__path__ for f in glob.glob(p + "/*/bin/compute-sanitizer")]' 2>/dev/null); do
    [[ ! -x $path ]] || { echo "$path"; return; }
  done
}

# Unpacks, and sets bin and libraries (the folders for LD_LIBRARY_PATH, ours last).
unpack() {
  [[ -f $pack ]] || { echo "run.sh: no $pack: run bench/gpu/pack.sh on the build machine and bring it along" >&2; exit 2; }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  tar -C "$work" -xJf "$pack" || exit 2
  bin=$work/qtrain-gpu/bin
  libraries=$(cuda_folders | paste -sd:):$work/qtrain-gpu/lib
  libraries=${libraries#:}
  # A C++ library older than the one we were built with: take ours.
  if ! LD_LIBRARY_PATH=$libraries "$bin/qtrain" --version >/dev/null 2>&1; then
    libraries=$work/qtrain-gpu/lib-system:$libraries
    LD_LIBRARY_PATH=$libraries "$bin/qtrain" --version || {
      echo "run.sh: qtrain doesn't start here; what it misses:" >&2
      LD_LIBRARY_PATH=$libraries ldd "$bin/qtrain" | grep 'not found' >&2
      exit 2
    }
  fi
}

describe_machine() {
  cat "$work/qtrain-gpu/BUILD.txt"
  echo "gpu: $(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null || echo none)"
  echo "processor: $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
  # shellcheck source=/dev/null
  echo "system: $(. /etc/os-release && echo "$PRETTY_NAME"), $(ldd --version | head -n 1)"
  python3 - <<'PYTHON'
import importlib.metadata, platform
print("python:", platform.python_version())
for package in ("torch", "torchvision", "triton", "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime"):
    try:
        print(f"{package}: {importlib.metadata.version(package)}")
    except importlib.metadata.PackageNotFoundError:
        print(f"{package}: not installed")
PYTHON
}

# --- tests --------------------------------------------------------------------------------------------------------

# The N of a line such as "[  PASSED  ] N tests." in a log.
count_of() { sed -n "s/^\[ *$1 *\] \([0-9]*\) tests\?[.,].*/\1/p" "$2" | tail -n 1; }

# summarize NAME STATUS SECONDS LOG: one line, and the names of failed tests.
summarize() {
  local note=
  case $2 in
    0 | 1) ;;
    124 | 137) note='  STOPPED: took too long' ;;
    *) note="  ENDED WITH STATUS $2" ;;
  esac
  grep -q '^\[=*\] 0 tests' "$4" && note+='  no test matched'
  printf '%-28s passed %4d  failed %3d  skipped %3d  %4d s%s\n' "$1" "$(count_of PASSED "$4")" "$(count_of FAILED "$4")" \
    "$(count_of SKIPPED "$4")" "$3" "$note"
  sed -n 's/^\[  FAILED  \] \([^ ,]*\.[^ ,]*\).*/    \1/p' "$4" | sort -u | head -n 20
}

# run_test NAME LIMIT PREFIX...: runs a test program behind PREFIX, writes its summary to a file; fails as the test does.
run_test() {
  local name=$1 limit=$2 status=0 start=$SECONDS
  shift 2
  LD_LIBRARY_PATH=$libraries timeout -k 10 "$limit" "${@:2}" "$bin/$name" "${gtest_flags[@]}" \
    >"$logs/$1$name.log" 2>&1 || status=$?
  # A filter that fits no test would pass for success.
  ((status)) || ! grep -q '^\[=*\] 0 tests' "$logs/$1$name.log" || status=1
  summarize "$1$name" "$status" "$((SECONDS - start))" "$logs/$1$name.log" >"$logs/$1$name.summary"
  return "$status"
}

tests_stage() {
  local names=(test_engine test_quant test_layers test_golden test_trajectory test_runs test_optim test_zoo test_cli test_data
    test_io test_kill) name stage_end pids=()
  if [[ $quick ]]; then names=(test_engine test_quant test_layers test_optim); fi
  for name in "$bin"/test_*; do  # those that are new
    name=${name##*/}
    [[ $quick || " ${names[*]} " == *" $name "* ]] || names+=("$name")
  done
  stage_end=$((SECONDS + $(portion 3 1)))
  gtest_flags=()
  # Four at a time: each waits for the GPU more than it computes.
  for name in "${names[@]}"; do
    [[ -x $bin/$name ]] || continue
    while (($(jobs -rp | wc -l) >= 4)); do sleep 0.2; done
    run_test "$name" "$((stage_end > SECONDS ? stage_end - SECONDS : 1))" '' & pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  for name in "${names[@]}"; do cat "$logs/$name.summary" 2>/dev/null; done >"$logs/tests.summary"
}

# --- sanitizers ---------------------------------------------------------------------------------------------------

sanitized=(test_backend_cuda test_engine test_quant)
filter_of() {
  case $filter$1 in
    test_engine) echo "$engine_filter" ;;
    test_quant) echo "$quant_filter" ;;
    test_*) echo '*' ;;
    *) echo "$filter" ;;
  esac
}

sanitize_stage() {
  local sanitizer tool program limit errors
  sanitizer=$(find_sanitizer)
  if [[ -z $sanitizer ]]; then
    echo 'compute-sanitizer is not on this machine' >"$logs/sanitize.summary"
    return
  fi
  for tool in memcheck racecheck; do
    for program in "${sanitized[@]}"; do
      [[ -x $bin/$program ]] || continue
      limit=$(portion 16 6)
      gtest_flags=("--gtest_filter=$(filter_of "$program")")
      # Without caching, the tool sees the bounds of every tensor.
      QTRAIN_ALLOCATOR=system run_test "$program" "$limit" "$tool-" "$sanitizer" --tool "$tool" --error-exitcode 9 || failed=1
      errors=$(sed -n -e 's/.*ERROR SUMMARY: //p' -e 's/.*RACECHECK SUMMARY: //p' "$logs/$tool-$program.log" | tail -n 1)
      { cat "$logs/$tool-$program.summary"; echo "    $tool: ${errors:-no summary}"; } >>"$logs/sanitize.summary"
    done
  done
}

# --- measurements -------------------------------------------------------------------------------------------------

bench_stage() {
  local budget
  budget=$(left 100000)
  # It keeps to its budget by itself, so that what was measured is written.
  timeout -k 10 $((budget + 15)) python3 bench/gpu/compare.py --programs "$bin" --libraries "$libraries" --results "$results" \
    --machine "$logs/machine.txt" --seconds "$budget" ${quick:+--quick} "${compare_arguments[@]}" \
    >"$logs/bench.summary" 2> >(tee "$logs/bench.log" >&2) || echo "compare.py ended with status $?" >>"$logs/bench.summary"
}

# ------------------------------------------------------------------------------------------------------------------

if [[ $dry_run ]]; then
  echo "unpack $pack"
  echo "libraries from $(cuda_folders | paste -sd:):<unpacked>/lib"
  echo "results in $results, logs in $logs; $seconds s"
  ! wanted tests || echo "tests: every test program, QTRAIN_TESTS_FOLDER=$PWD/tests"
  ! wanted sanitize || echo "sanitize: $(find_sanitizer || true) memcheck and racecheck over"
  ! wanted sanitize || for program in "${sanitized[@]}"; do echo "  $program --gtest_filter=$(filter_of "$program")"; done
  if wanted bench; then
    python3 bench/gpu/compare.py --dry-run --programs '<unpacked>/bin' ${quick:+--quick} "${compare_arguments[@]}"
  fi
  exit
fi

unpack
mkdir -p "$results" "$logs"
rm -f "$logs"/*.summary
export QTRAIN_TESTS_FOLDER=$PWD/tests QTRAIN_BINARY=$bin/qtrain
export XDG_CACHE_HOME=$work/cache OMP_WAIT_POLICY=passive
describe_machine | tee "$logs/machine.txt"
if wanted tests; then say tests; OMP_NUM_THREADS=$((($(nproc) + 3) / 4)) tests_stage; cat "$logs/tests.summary"; fi
if wanted sanitize; then say sanitize; sanitize_stage; cat "$logs/sanitize.summary"; fi
if wanted bench; then say bench; bench_stage; fi
# Everything once more, short, where the end of the output is all that one sees.
say summary
for stage in tests sanitize bench; do cat "$logs/$stage.summary" 2>/dev/null; done
exit "$failed"
