#!/bin/sh
# Makes a virtual environment for each peer that needs one of its own: FOLDER/sglang, FOLDER/vllm
# (3 GB each) and FOLDER/peers. Installs the pinned packages and no CUDA; measures nothing. An
# environment that was made from the same pins is left alone.
set -eu
if [ $# -lt 1 ]; then
  echo "usage: make-environments.sh FOLDER [sglang] [vllm] [peers]" >&2
  exit 2
fi
folder=$1
shift
here=$(dirname "$0")
[ $# -gt 0 ] || set -- sglang vllm peers
for name; do
  environment=$folder/$name
  requirements=$here/requirements-$name.txt
  if cmp -s "$requirements" "$environment/.made"; then continue; fi
  echo "making $environment ..."
  rm -rf "$environment"
  "${PYTHON:-python3}" -m venv "$environment"
  # The build for CPUs: one for CUDA does not import without what --no-deps keeps away. Python compiles
  # what it imports, which is a small part of what is installed.
  install="$environment/bin/python -m pip install --quiet --no-deps --no-compile"
  nice $install "torch==${TORCH:-2.13.0}"
  nice $install -r "$requirements"
  cp "$requirements" "$environment/.made"
done
