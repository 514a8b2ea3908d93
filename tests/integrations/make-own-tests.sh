#!/bin/sh
# Gets what the engines' own tests take: pytest in FOLDER/pytest and, unless they are in GIVEN/ENGINE,
# FOLDER/sources/ENGINE for each engine whose source distribution holds its tests. vLLM's does; nothing
# of it is built. SGLang has none. Where they cannot be had the reason is left in
# FOLDER/sources/ENGINE.reason, which the tests then say: always ends with status 0.
set -u
if [ $# -lt 3 ]; then
  echo "usage: make-own-tests.sh FOLDER GIVEN ENGINE ..." >&2
  exit 2
fi
mkdir -p "$1/sources"
folder=$(cd "$1" && pwd)
given=$2
shift 2
here=$(dirname "$0")
compare=$here/../../benchmarks/compare
python=${PYTHON:-python3}

make_pytest() {
  requirements=$here/requirements-own-tests.txt
  if cmp -s "$requirements" "$folder/pytest/.made"; then return 0; fi
  rm -rf "$folder/pytest"
  # Not in the environments: what else they have is the engine's.
  "$python" -m pip install --quiet --no-deps --target "$folder/pytest" -r "$requirements" || return 1
  cp "$requirements" "$folder/pytest/.made"
}

# $1: vllm or vllm-previous. pip asks a source distribution for its metadata, and so wants what vLLM
# is built with. torch is the one of the environment: what vLLM asks for would come with CUDA.
make_vllm() {
  requirements=$compare/requirements-$1.txt
  [ -e "$requirements" ] || requirements=$here/requirements-$1.txt
  release=$(sed -n 's/^vllm==//p' "$requirements")
  sources=$folder/sources/$1
  if [ "$(cat "$sources/.made" 2> /dev/null)" = "$release" ]; then return 0; fi
  builder=$folder/sources/.builder
  rm -rf "$sources" "$builder"
  mkdir -p "$sources"
  "$folder/vllm/bin/python" -m venv "$builder" || return 1
  "$builder/bin/python" -m pip install --quiet \
    'setuptools>=77.0.3,<81' setuptools-scm setuptools-rust wheel jinja2 packaging || return 1
  "$folder/vllm/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
    "$("$builder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm.pth"
  VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE=$release "$builder/bin/python" -m pip download \
    --quiet --no-deps --no-binary vllm --no-build-isolation --dest "$builder" "vllm==$release" &&
    tar -xzf "$builder/vllm-$release.tar.gz" -C "$sources" --strip-components 1 \
      "vllm-$release/tests/model_executor" "vllm-$release/tests/__init__.py" || return 1
  rm -rf "$builder"
  echo "$release" > "$sources/.made"
}

make_own_tests() {
  make_pytest || return 1
  if [ -n "$given" ] && [ -d "$given/$1" ]; then return 0; fi
  case $1 in
    vllm*) make_vllm "$1" ;;
    *)
      echo "they are in no package: ENGINE_SOURCES=FOLDER, with a checkout of the release in FOLDER/$1"
      return 1
      ;;
  esac
}

for engine; do
  reason=$folder/sources/$engine.reason
  rm -f "$reason"
  if ! make_own_tests "$engine" > "$folder/sources/$engine.log" 2>&1; then
    grep -v '^WARNING' "$folder/sources/$engine.log" | tail -n 1 > "$reason"
    echo "no tests of $engine: $(cat "$reason")"
  fi
done
