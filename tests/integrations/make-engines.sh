#!/bin/sh
# Makes FOLDER/ENGINE for each engine, as the comparison does, and installs the WHEEL into it.
# ENGINE-previous is an older release of ENGINE on top of its environment: its python finds that first.
# Where one cannot be made the reason is left in FOLDER/ENGINE.reason, which the tests then say, and the
# others are made all the same: always ends with status 0.
set -u
if [ $# -lt 3 ]; then
  echo "usage: make-engines.sh FOLDER WHEEL ENGINE ..." >&2
  exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
wheel=$2
shift 2
here=$(dirname "$0")
compare=$here/../../benchmarks/compare
needed_kib=4194304

make_engine() {
  if [ ! -e "$folder/$1/.made" ]; then
    free_kib=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
    if [ "$free_kib" -lt "$needed_kib" ]; then
      echo "$((free_kib / 1024)) MiB free in $folder, an engine needs $((needed_kib / 1024))"
      return 1
    fi
  fi
  sh "$compare/make-environments.sh" "$folder" "$1" || return 1
  if cmp -s "$wheel" "$folder/$1/.wheel"; then return 0; fi
  "$folder/$1/bin/python" -m pip install --quiet --no-deps --force-reinstall "$wheel" || return 1
  cp "$wheel" "$folder/$1/.wheel"
}

make_previous() {
  newest=$folder/${1%-previous}
  requirements=$here/requirements-$1.txt
  if [ ! -e "$newest/.wheel" ]; then
    echo "no ${1%-previous}: $(cat "$newest.reason")"
    return 1
  fi
  if ! cmp -s "$requirements" "$folder/$1/.made"; then
    rm -rf "${folder:?}/$1"
    mkdir -p "$folder/$1/bin"
    "$newest/bin/python" -m pip install --quiet --no-deps --no-compile --target "$folder/$1/packages" \
      -r "$requirements" || return 1
    printf '#!/bin/sh\nPYTHONPATH=%s exec %s "$@"\n' "$folder/$1/packages" \
      "$newest/bin/python" > "$folder/$1/bin/python"
    chmod +x "$folder/$1/bin/python"
    cp "$requirements" "$folder/$1/.made"
  fi
  cp "$newest/.wheel" "$folder/$1/.wheel"
}

for engine; do
  rm -f "$folder/$engine.reason"
  case $engine in
    *-previous) make=make_previous ;;
    *) make=make_engine ;;
  esac
  if $make "$engine" > "$folder/$engine.log" 2>&1; then
    echo "$engine: $folder/$engine"
  else
    grep -v '^WARNING' "$folder/$engine.log" | tail -n 1 > "$folder/$engine.reason"
    rm -f "$folder/$engine/.wheel"
    echo "no $engine: $(cat "$folder/$engine.reason")"
  fi
done
