#!/bin/sh
# Installs the build into a folder of its own, builds the examples there with nothing but pkg-config, and runs them.
#   install_test.sh BUILD_FOLDER SOURCE_FOLDER
set -eu
build=$1
source=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/qtrain-install-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "install_test: $*" >&2; exit 1; }
expect() { grep -q -- "$2" "$1" || { cat "$1" >&2; fail "no '$2' in $(basename "$1")"; }; }

# The prefix is moved after the installation: nothing may remember where it was.
DESTDIR=$work/stage meson install -C "$build" --no-rebuild --quiet >"$work/install.log" 2>&1 ||
  { cat "$work/install.log" >&2; fail "meson install"; }
pc=$(find "$work/stage" -name qtrain.pc)
[ -n "$pc" ] || fail "no qtrain.pc was installed"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
mv "$(realpath "$(pkg-config --variable=prefix qtrain)")" "$work/moved"
qtrain=$work/moved/bin/qtrain
PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name qtrain.pc)")
flags() { pkg-config "$@" qtrain; }
case $(flags --variable=prefix) in
  "$work"/moved*) ;;
  *) fail "the prefix in qtrain.pc doesn't follow its file: $(flags --variable=prefix)" ;;
esac

cd "$work"
# Outside the system's folders, programs are told where the libraries are.
# shellcheck disable=SC2046  # flags are words
${CXX:-c++} -Wall -Wextra -Werror -O1 "$source/examples/train_demo.cpp" $(flags --cflags --libs) \
  -Wl,-rpath,"$(flags --variable=libdir)" -o train_demo
# shellcheck disable=SC2046
${CXX:-c++} -Wall -Wextra -Werror -O1 -shared -fPIC "$source/examples/my_quantizer.cpp" $(flags --cflags --libs) \
  -o my_quantizer.so

data=tensors:$source/tests/trajectory/batches.safetensors
./train_demo "$data" 2 >demo.txt
expect demo.txt 'epoch 2  loss'
if ./train_demo no-such-folder 1 >/dev/null 2>&1; then fail "the demo trained on nothing"; fi

"$qtrain" list quantizers --plugin ./my_quantizer.so >list.txt
expect list.txt '^minmax-pow2: '
expect list.txt 'activation.momentum=0.1'
"$qtrain" list quantizers >plain.txt
if grep -q minmax-pow2 plain.txt; then fail "the plug-in's quantizer is there without the plug-in"; fi
"$qtrain" --model resnet20 --data "$data" --plugin ./my_quantizer.so --quant minmax-pow2 --bits 4 --batch-size 32 \
  --max-steps 2 --output run >train.txt 2>&1 || { cat train.txt >&2; fail "training with the plug-in"; }
[ -s run/config.toml ] || fail "the run left no config.toml"
expect run/config.toml 'my_quantizer.so'

# What is no plug-in ends in one line and status 2.
echo 'not a library' >text.so
for bad in ./text.so ./missing.so; do
  status=0
  "$qtrain" list quantizers --plugin "$bad" >/dev/null 2>bad.txt || status=$?
  [ "$status" = 2 ] && [ "$(wc -l <bad.txt)" = 1 ] || { cat bad.txt >&2; fail "$bad: status $status"; }
done
echo "installed, moved, built against, run"
