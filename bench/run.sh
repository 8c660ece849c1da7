#!/usr/bin/env bash
# Measures everything beside PyTorch and writes bench/results/DATE-CPU.{md,json}; about 20 minutes on two cores.
#   bench/run.sh [BUILD_FOLDER] [--quick] [--rounds N] [--threads N] [--only training|quantize|quantizers|loader]
# BUILD_FOLDER holds a release build (default: build/ at the top).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$here/../build
if (($#)) && [[ $1 != --* ]]; then
  build=$1
  shift
fi

packages=(python3-torch python3-torchvision python3-pil libblas3 liblapack3 libopenblas0-pthread libtcmalloc-minimal4)
missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "installing ${missing[*]}" >&2
  sudo=()
  if ((EUID != 0)); then sudo=(sudo); fi
  export DEBIAN_FRONTEND=noninteractive
  { "${sudo[@]}" apt-get -q update && "${sudo[@]}" apt-get -q install -y --no-install-recommends "${missing[@]}"; } >&2
fi

ninja -C "$build" bench/training_step bench/onednn_limit bench/fake_quantize bench/quantizers bench/loader \
  bench/make_photographs >&2
exec /usr/bin/python3 "$here/compare.py" "$build" "$@"
