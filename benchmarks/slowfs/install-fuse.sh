#!/bin/sh
# Installs libfuse3 (headers and fusermount3) from the distribution where that is allowed. Never
# fails: without FUSE the slow filesystem is not built, and what needs it says so.
if pkg-config --exists fuse3 2>/dev/null && command -v fusermount3 >/dev/null 2>&1; then exit 0; fi

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  echo "libfuse3 is missing and may not be installed here: no slow filesystem"
  exit 0
fi

echo "installing libfuse3 from the distribution ..."
if command -v apt-get >/dev/null 2>&1; then
  $as_root apt-get update -qq &&
    $as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends libfuse3-dev fuse3 pkg-config
elif command -v dnf >/dev/null 2>&1; then
  $as_root dnf install -y -q fuse3-devel fuse3 pkgconf-pkg-config
elif command -v zypper >/dev/null 2>&1; then
  $as_root zypper --non-interactive install fuse3-devel fuse3 pkg-config
elif command -v pacman >/dev/null 2>&1; then
  $as_root pacman -S --noconfirm --needed fuse3 pkgconf
fi >/dev/null 2>&1 || echo "installing libfuse3 failed: no slow filesystem"
exit 0
