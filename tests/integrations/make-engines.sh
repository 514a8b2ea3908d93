#!/bin/sh
# Makes FOLDER/ENGINE for each engine, as the comparison does, and installs the WHEEL into it. Where
# that cannot be done it leaves the reason in FOLDER/ENGINE.reason, which the tests then say, and goes
# on: always ends with status 0.
set -u
if [ $# -lt 3 ]; then
  echo "usage: make-engines.sh FOLDER WHEEL ENGINE ..." >&2
  exit 2
fi
folder=$1
wheel=$2
shift 2
compare=$(dirname "$0")/../../benchmarks/compare
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

mkdir -p "$folder"
for engine; do
  rm -f "$folder/$engine.reason"
  if make_engine "$engine" > "$folder/$engine.log" 2>&1; then
    echo "$engine: $folder/$engine"
  else
    grep -v '^WARNING' "$folder/$engine.log" | tail -n 1 > "$folder/$engine.reason"
    rm -f "$folder/$engine/.wheel"
    echo "no $engine: $(cat "$folder/$engine.reason")"
  fi
done
