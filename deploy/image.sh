#!/usr/bin/env bash
# Builds the image without a Docker engine, as root on Debian or Ubuntu: mmdebstrap makes the base, buildah the rest.
#
# Environment, all optional:
#   IMAGE        name:tag of the result                            chainrule:latest
#   BASE         base image to build on; empty makes a Debian one  (empty)
#   SUITE        Debian release of that base                       bookworm
#   MIRROR       where its packages come from; empty is usual one  (empty)
#   KERNELS      native compiles the kernels, torch does without    native
#   BAKE_MODEL   model put into the image; empty leaves it out     (empty)
#   TORCH_INDEX  one more package index to look for torch in       (empty)
#   VERSION      the version label                                 unreleased
#   STORE        folder of the image storage                       .cache/image
#
# pip finds its packages in the build as it does on this machine: see pip_settings.py.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=${IMAGE:-chainrule:latest}
SUITE=${SUITE:-bookworm}
STORE=$(realpath --canonicalize-missing "${STORE:-.cache/image}")
PYTHON=${PYTHON:-python3}
DEBIAN_BASE=localhost/chainrule-base:$SUITE

die() {
    echo "image: $*" >&2
    exit 1
}

buildah_here() {
    buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver vfs "$@"
}

check_tools() {
    [ "$(id -u)" = 0 ] || die "this needs root; with a Docker engine, 'docker build .' needs nothing of this"
    local tools=(buildah)
    [ -n "${BASE:-}" ] || tools+=(mmdebstrap)
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null || die "$tool is missing: apt-get install ${tools[*]}"
    done
    "$PYTHON" -m pip --version >/dev/null || die "$PYTHON has no pip, whose settings the build takes over"
}

# A Debian with Python, and without documentation, manuals and translations.
make_base() {
    buildah_here inspect --type image "$DEBIAN_BASE" >/dev/null 2>&1 && return
    local tarball=$WORK/base.tar container
    mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$SUITE" "$tarball" ${MIRROR:+"$MIRROR"}
    container=$(buildah_here from scratch)
    buildah_here add --quiet "$container" "$tarball" / >/dev/null
    buildah_here config --cmd bash "$container"
    buildah_here commit --quiet --rm --format docker "$container" "$DEBIAN_BASE" >/dev/null
    rm "$tarball"
}

build() {
    local volumes=() folder
    "$PYTHON" deploy/pip_settings.py "$WORK"
    while read -r folder; do
        volumes+=(--volume "$folder:$folder:ro")
    done <"$WORK/mounts"
    buildah_here bud --isolation chroot --format docker --tag "$IMAGE" \
        --build-arg BASE="${BASE:-$DEBIAN_BASE}" \
        --build-arg KERNELS="${KERNELS:-native}" \
        --build-arg BAKE_MODEL="${BAKE_MODEL:-}" \
        --build-arg TORCH_INDEX="${TORCH_INDEX:-}" \
        --build-arg VERSION="${VERSION:-unreleased}" \
        --secret id=pip-conf,src="$WORK/pip.conf" \
        --secret id=ca-bundle,src="$WORK/ca-bundle" \
        "${volumes[@]}" .
    buildah_here rmi --prune >/dev/null
    buildah_here images "$IMAGE"
}

check_tools
mkdir -p "$STORE"
WORK=$(mktemp -d "$STORE/work.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
[ -n "${BASE:-}" ] || make_base
build
