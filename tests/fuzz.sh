#!/usr/bin/env bash
# Fuzzes every parser and decoder with libFuzzer under ASan and UBSan: tests/fuzz.sh [SECONDS each]
# Crashing inputs are left in build-fuzz/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
mkdir -p build-fuzz
compile() { clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -I. "$@"; }
compile tests/io/safetensors_fuzz.cpp engine/io/{safetensors,safetensors_header,file_descriptor}.cpp \
  engine/core/error.cpp -lfmt -o build-fuzz/safetensors
# stb_image calls memcpy(nullptr, ..., 0), which is harmless.
compile -fno-sanitize=nonnull-attribute tests/data/decode_fuzz.cpp data/decode{,_jpeg,_stb}.cpp engine/core/error.cpp -ljpeg -lfmt \
  -o build-fuzz/decode
compile tests/data/pack_fuzz.cpp data/sets/pack_format.cpp engine/io/checksum.cpp engine/core/error.cpp -lxxhash -lfmt \
  -o build-fuzz/pack
compile tests/data/tar_fuzz.cpp data/sets/tar_{archive,samples}.cpp engine/core/error.cpp -lfmt -o build-fuzz/tar
cd build-fuzz
for target in safetensors decode pack tar; do
  mkdir -p "corpus-$target"
  "./$target" -max_total_time="$seconds" -print_final_stats=1 "corpus-$target" 2>&1 | tail -n 8
done
