#!/bin/sh
# Installs the browser that tests/browser drives from Debian's packages, where it is missing and may be installed.
# Where it may not, this says so and succeeds: tests/browser/conftest.py decides whether that is a failure.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        exit 0
    fi
done
if ! command -v apt-get >/dev/null; then
    echo "There is no Chromium, and no apt-get to install it with."
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "There is no Chromium, and installing it takes root: apt-get install chromium fonts-dejavu-core"
    exit 0
fi
echo "Installing Chromium for the tests that need a browser."
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium fonts-dejavu-core
