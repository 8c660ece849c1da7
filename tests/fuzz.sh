#!/usr/bin/env bash
# Fuzzes every parser and decoder with libFuzzer under ASan and UBSan: tests/fuzz.sh [SECONDS each] [TARGET...]
# Crashing inputs are left in build-fuzz/, and so is the corpus, with which the next run goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(safetensors decode pack tar)
mkdir -p build-fuzz
sanitized=(-std=c++20 -O1 -g -I. -fsanitize=address,undefined -fno-sanitize-recover=undefined)

build_safetensors() {
  clang++ "${sanitized[@]}" -fsanitize=fuzzer tests/io/safetensors_fuzz.cpp \
    engine/io/{safetensors,safetensors_header,file_descriptor}.cpp engine/core/error.cpp -lfmt -o build-fuzz/safetensors
}

build_decode() {
  # stb_image calls memcpy(nullptr, ..., 0), which is harmless.
  clang++ "${sanitized[@]}" -fsanitize=fuzzer -fno-sanitize=nonnull-attribute tests/data/decode_fuzz.cpp \
    data/codec/{decode,decode_jpeg,decode_stb,image_decoder}.cpp engine/core/error.cpp -ljpeg -lfmt -o build-fuzz/decode
  clang++ "${sanitized[@]}" tests/data/{fuzz_seeds,jpeg_flavours}.cpp engine/core/rng.cpp engine/core/error.cpp \
    -ljpeg -lfmt -o build-fuzz/decode-seeds
  build-fuzz/decode-seeds build-fuzz/seeds-decode
}

build_pack() {
  clang++ "${sanitized[@]}" -fsanitize=fuzzer tests/data/pack_fuzz.cpp data/sets/pack_format.cpp engine/io/checksum.cpp \
    engine/core/error.cpp -lxxhash -lfmt -o build-fuzz/pack
}

build_tar() {
  clang++ "${sanitized[@]}" -fsanitize=fuzzer tests/data/tar_fuzz.cpp data/sets/tar_{archive,samples}.cpp engine/core/error.cpp \
    -lfmt -o build-fuzz/tar
}

for target in "${targets[@]}"; do
  "build_$target"
done
cd build-fuzz
for target in "${targets[@]}"; do
  mkdir -p "corpus-$target" "seeds-$target"
  "./$target" -max_total_time="$seconds" -timeout=20 -print_final_stats=1 "corpus-$target" "seeds-$target" 2>&1 | tail -n 12
done
