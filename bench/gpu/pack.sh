#!/usr/bin/env bash
# Builds for a GPU machine that has the CUDA toolkit but none of the other libraries, and packs programs, tests and
# these libraries into build-gpu/pack/qtrain-gpu.tar.xz, for bench/gpu/run.sh to use there.
#   bench/gpu/pack.sh [--no-build] [--dry-run] [MESON_OPTIONS...]
# MESON_OPTIONS, such as -Dgpu_architectures=90,100, count when build-gpu/ is made. --no-build packs what build-gpu/
# holds, finished or not. Processors differ, so the CPU code is portable.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build='build-gpu'
folder=$build/pack/qtrain-gpu
archive=$folder.tar.xz
most_mib=60  # what can be brought to such a machine, with some room for the sources

build_first=1
dry_run=
meson_options=()
for argument in "$@"; do
  case $argument in
    --no-build) build_first= ;;
    --dry-run) dry_run=1 ;;
    -D*) meson_options+=("$argument") ;;
    *) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done

do_build() {
  [[ -f $build/build.ninja ]] ||
    meson setup "$build" -Dcpu=portable -Dcuda=enabled -Dbench=true "${meson_options[@]}"
  ninja -C "$build"
}

# What the build made: PATTERN in FOLDER, files of that name that are programs or libraries.
programs() { find "$build/cli" "$build/tests" "$build/bench" -maxdepth 1 -type f -executable -not -name '*.so'; }
own_libraries() { find "$build" -maxdepth 2 -name 'libqtrain_*.so' -type f; }

# Libraries that come with every system, or with the GPU machine's toolkit and Python packages.
is_there() {
  case $1 in
    ld-linux* | libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | libresolv.so*) true ;;
    libcuda.so* | libcudart.so* | libcublas* | libcudnn* | libnvrtc* | libnvJitLink* | libnccl*) true ;;
    *) false ;;
  esac
}

# Lines "NAME PATH" of the other shared libraries that the given files need, those of libraries too.
needed_libraries() {
  ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u | while read -r name path; do
    [[ $name == libqtrain_* ]] || is_there "$name" || echo "$name $path"
  done
}

describe() {
  echo "commit: $(git describe --always --dirty)"
  echo "compiler: $(c++ --version | head -n 1)"
  echo "nvcc: $(PATH=$PATH:/usr/local/cuda/bin nvcc --version 2>/dev/null | sed -n 's/.*release //p')"
  meson introspect "$build" --buildoptions | python3 -c '
import json, sys
for option in json.load(sys.stdin):
    if option["name"] in ("cpu", "cuda", "gpu_architectures", "buildtype"):
        print("{}: {}".format(option["name"], option["value"]))'
}

collect() {
  rm -rf "$folder"
  mkdir -p "$folder"/{bin,lib,lib-system}
  programs | xargs -I{} cp {} "$folder/bin/"
  own_libraries | xargs -I{} cp {} "$folder/lib/"
  # The compiler's own libraries are used only where the machine's are older: see run.sh.
  needed_libraries "$folder"/bin/* "$folder"/lib/*.so | while read -r name path; do
    case $name in
      libstdc++.so* | libgcc_s.so*) cp -L "$path" "$folder/lib-system/$name" ;;
      *) cp -L "$path" "$folder/lib/$name" ;;
    esac
  done
  find "$folder" -type f -exec strip {} +
  describe >"$folder/BUILD.txt"
}

if [[ $dry_run ]]; then
  echo "build into $build: ${build_first:-no}; meson options: -Dcpu=portable -Dcuda=enabled ${meson_options[*]}"
  echo "archive: $archive"
  [[ -d $build ]] || exit 0
  mapfile -t files < <(programs; own_libraries)
  printf 'pack %s\n' "${files[@]}"
  ((${#files[@]} == 0)) || LD_LIBRARY_PATH=$(own_libraries | xargs -rn1 dirname | sort -u | paste -sd:) \
    needed_libraries "${files[@]}" | sed 's/^/bring /'
  exit
fi

[[ ! $build_first ]] || do_build
[[ $(own_libraries | wc -l) -ge 5 ]] || { echo "pack.sh: $build holds no finished libraries" >&2; exit 1; }
# ldd looks for our libraries where the build has them.
LD_LIBRARY_PATH=$(own_libraries | xargs -n1 dirname | sort -u | xargs realpath | paste -sd:)
export LD_LIBRARY_PATH
collect
missing=$(ldd "$folder"/bin/* "$folder"/lib/*.so* 2>/dev/null | awk '/not found/ {print $1}' | sort -u)
for name in $missing; do
  is_there "$name" || { echo "pack.sh: $name is needed and not found" >&2; exit 1; }
done
tar -C "$folder/.." -c "$(basename "$folder")" | xz -T2 -6 >"$archive"
mib=$(($(stat -c %s "$archive") / 1048576 + 1))
echo "$archive: $mib MiB, $(find "$folder/bin" -type f | wc -l) programs, $(find "$folder" -name '*.so*' | wc -l) libraries"
find "$folder" -type f -printf '%s %P\n' | sort -rn | head -n 5 | awk '{printf "  %6.1f MB  %s\n", $1 / 1e6, $2}'
rm -rf "$folder"
if ((mib > most_mib)); then
  echo "pack.sh: more than $most_mib MiB can't be brought along" >&2
  exit 1
fi
