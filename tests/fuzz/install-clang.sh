#!/bin/sh
# Installs clang with libFuzzer from the distribution where that is allowed. Never fails: without it
# the fuzz targets are built by the compiler at hand and driven by replay.cpp.
links_fuzzer() {
  for compiler in clang++ $(ls /usr/bin/clang++-[0-9]* 2>/dev/null | sort -rV); do
    command -v "$compiler" >/dev/null 2>&1 || continue
    echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
      "$compiler" -x c++ -fsanitize=fuzzer,address -o /dev/null - 2>/dev/null || continue
    echo "$compiler"
    return 0
  done
  return 1
}

if links_fuzzer; then exit 0; fi

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  exit 0
fi

echo "installing clang from the distribution ..." >&2
{
  if command -v apt-get >/dev/null 2>&1; then
    $as_root apt-get update -qq
    for version in -19 -18 -17 -16 -15 ""; do
      runtime="libclang-rt$version-dev"
      [ "$version" ] && apt-cache show "clang$version" || [ ! "$version" ] || continue
      apt-cache show "$runtime" || runtime=""
      # shellcheck disable=SC2086
      $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "clang$version" $runtime && break
    done
  elif command -v dnf >/dev/null 2>&1; then
    $as_root dnf install -y -q clang compiler-rt
  elif command -v zypper >/dev/null 2>&1; then
    $as_root zypper --non-interactive install clang
  elif command -v pacman >/dev/null 2>&1; then
    $as_root pacman -S --noconfirm --needed clang compiler-rt
  fi
} >/dev/null 2>&1
links_fuzzer
exit 0
