#!/usr/bin/env bash
# Makes the Python environment of the project: setup.sh VENV REQUIREMENTS
# Checks the compilers first, so that a missing one is named before 5 GB arrive.
set -euo pipefail
venv=$1
requirements=$2
python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# Installs a Debian package when we may, else explains. $1 package, $2 why.
need_package() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $1 ($2)"
        apt-get install -y --no-install-recommends "$1" >/dev/null 2>&1 || {
            apt-get update >/dev/null && apt-get install -y --no-install-recommends "$1" >/dev/null
        }
    else
        return 1
    fi
}

command -v cargo >/dev/null || die "cargo is not on the PATH; install Rust (1.95 or newer) first"
command -v cc >/dev/null || need_package gcc "compiles LMDB and the JPEG decoder" ||
    die "no C compiler; install one (Debian: apt-get install gcc)"
command -v c++ >/dev/null || need_package g++ "compiles the bindings to libtorch" ||
    die "no C++ compiler, which the searcher needs; install one (Debian: apt-get install g++)"
command -v nasm >/dev/null || need_package nasm "assembles the JPEG decoder's SIMD code" ||
    say "nasm is missing: JPEG decoding is built without SIMD and will be slower (Debian: apt-get install nasm)"
command -v "$python" >/dev/null || die "$python is not on the PATH; install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11"

if [ ! -x "$venv/bin/python" ]; then
    say "making the Python environment $venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        need_package python3-venv "makes Python environments" || die "$python cannot make environments; install python3-venv"
        "$python" -m venv "$venv"
    fi
fi
say "installing Python packages (torch with its CUDA libraries: about 5 GB; 1 to 3 minutes on a fast line)"
"$(dirname "$0")/patiently.sh" "setup: pip" "$venv/bin/python" -m pip install --disable-pip-version-check --quiet \
    --progress-bar off -r "$requirements" || die "pip could not install $requirements (see above)"
# A second Pillow for the parity tests, out of the way of the first.
other=$(dirname "$requirements")/requirements-other-pillow.txt
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet --progress-bar off --no-deps --upgrade \
    --only-binary :all: --target "$venv/other-pillow" -r "$other" || die "pip could not install $other (see above)"
say "Python packages ready"
