# Helpers that the scripts share. Sourced, never run; needs bash.
# shellcheck shell=bash

# The root of the checkout, whatever directory we were called from.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# --- what the terminal shows ---------------------------------------------------------------------

# Colours only where a person looks: on a terminal, and not when https://no-color.org asks for none.
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' CYAN=$'\e[36m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' CYAN='' PLAIN=''
fi
# shellcheck disable=SC2034 # not every script uses every colour
readonly BOLD DIM RED GREEN YELLOW CYAN PLAIN

# One line about what is being done for the user.
note() { printf '%s%s%s\n' "$DIM" "$*" "$PLAIN"; }

# One line about something that is not as it could be; the script goes on.
warn() { printf '%s%s%s\n' "$YELLOW" "$*" "$PLAIN" >&2; }

# The end: what is wrong and what to do about it.
die() {
    printf '%s%s:%s %s\n' "$RED" "${0##*/}" "$PLAIN" "$*" >&2
    exit 1
}

# Seconds between two values of $EPOCHREALTIME, with one digit.
seconds_since() {
    local micros=$((${EPOCHREALTIME//[.,]/} - ${1//[.,]/}))
    printf '%d.%d' $((micros / 1000000)) $((micros / 100000 % 10))
}

# --- who we are ----------------------------------------------------------------------------------

# Runs a command as root: directly where we are root, else with sudo.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and sudo is not here: $*"
    fi
}

# Under `sudo scripts/...` Rust lives in the home of the person who called sudo, and what is built has
# to stay that person's. BUILDER is that person, or empty where we build as who we are.
BUILDER='' BUILDER_HOME=$HOME
if ((EUID == 0)) && [[ -n ${SUDO_USER:-} && $SUDO_USER != root && $(stat -c %U "$ROOT") == "$SUDO_USER" ]]; then
    BUILDER=$SUDO_USER
    BUILDER_HOME=$(getent passwd "$BUILDER" | cut -d: -f6)
fi
PATH=$PATH:${CARGO_HOME:-$BUILDER_HOME/.cargo}/bin # where rustup puts cargo, known to login shells only

# Runs cargo and its like as the owner of the checkout.
as_builder() {
    if [[ -n $BUILDER ]]; then
        runuser -u "$BUILDER" -- env HOME="$BUILDER_HOME" PATH="$PATH" "$@"
    else
        "$@"
    fi
}

# --- what has to be installed --------------------------------------------------------------------

# Installs those of the named apt packages that are missing, and says which.
need_packages() {
    local name missing=()
    command -v dpkg-query >/dev/null || {
        warn "this is not Debian or Ubuntu: make sure that you have what these packages hold: $*"
        return 0
    }
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    note "installing with apt: ${missing[*]}"
    # The package lists of a fresh machine are empty, those of an old one name files that are gone.
    apt_install "${missing[@]}" >/dev/null 2>&1 && return 0
    as_root apt-get update -qq >/dev/null || warn "apt-get update failed, trying with the lists that are here"
    apt_install "${missing[@]}" >/dev/null ||
        die "apt could not install: ${missing[*]} (the reason stands above)"
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null
}

# What it takes to compile shunt: a C compiler for the crates that need one, and the two libraries
# that speak nftables over netlink.
need_build_packages() {
    local compiler=()
    command -v cc >/dev/null || compiler=(gcc libc6-dev)
    need_packages "${compiler[@]}" pkg-config libnftnl-dev libmnl-dev "$@"
}

# Makes sure of a cargo that is as new as Cargo.toml's rust-version, with the named components
# (clippy, rustfmt); installs the stable toolchain with rustup where it is not.
need_rust() {
    local wanted component have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    if have=$(as_builder rustc --version 2>/dev/null | cut -d' ' -f2) && at_least "$wanted" "$have" &&
        as_builder cargo --version >/dev/null 2>&1; then
        for component in "$@"; do
            need_component "$component"
        done
        return 0
    fi
    if as_builder rustup --version >/dev/null 2>&1; then
        note "Rust $wanted or newer is needed, here is ${have:-none}: installing the stable toolchain with rustup"
        as_builder rustup toolchain install stable --profile minimal >/dev/null ||
            die "rustup could not install the stable toolchain"
    else
        need_packages curl ca-certificates
        note "Rust $wanted or newer is needed, here is ${have:-none}: installing rustup from https://sh.rustup.rs into $BUILDER_HOME/.cargo"
        # --no-modify-path: the shell's start-up files are not ours to edit.
        # RUSTUP_INIT_SKIP_PATH_CHECK: an old cargo of the distribution may stay where it is.
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            as_builder env RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- \
                -y --quiet --no-modify-path --profile minimal --default-toolchain stable ||
            die "rustup could not be installed: install Rust $wanted or newer by hand"
        PATH=${CARGO_HOME:-$BUILDER_HOME/.cargo}/bin:$PATH # before the old one
    fi
    export RUSTUP_TOOLCHAIN=stable # even if another one is the default
    have=$(as_builder rustc --version | cut -d' ' -f2)
    at_least "$wanted" "$have" || die "Rust $have is still older than $wanted"
    for component in "$@"; do
        need_component "$component"
    done
}

# Makes sure of a part of the toolchain that a minimal installation leaves out.
need_component() {
    local program=$1
    [[ $program == clippy ]] || program=rustfmt
    as_builder cargo "${program/rustfmt/fmt}" --version >/dev/null 2>&1 && return 0
    note "installing $1 with rustup"
    as_builder rustup component add "$1" >/dev/null 2>&1 || die "cargo has no $1, and rustup could not add it"
}

# at_least WANTED HAVE: whether version HAVE is WANTED or newer ("1.89" stands for 1.89.0).
at_least() {
    [[ -n $2 ]] && printf '%s\n%s\n' "$1" "${2%%-*}" | sort -C -V
}

# --- a place where nothing can be left behind -----------------------------------------------------

# enter_namespaces COMMAND...: runs it in new network, mount and process namespaces (as root of a user
# namespace where we are not root, or a root without CAP_NET_ADMIN), and ends with its exit code. Every signal that ends us ends that
# command first, which the kernel answers by killing all that it started and undoing all that it made;
# --pdeathsig does the same if we are killed without a word.
enter_namespaces() {
    local as_ordinary_user=(unshare --user --map-root-user) code=0 why hint="run it as root (sudo $0)"
    local private=(setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc)
    local try=(sh -c 'mount -t tmpfs tmpfs /run && ip link set lo up')
    if ((EUID == 0)); then
        hint="in a container it needs --privileged"
        ! "${private[@]}" "${try[@]}" 2>/dev/null || as_ordinary_user=()
    fi
    why=$("${as_ordinary_user[@]}" "${private[@]}" "${try[@]}" 2>&1) ||
        die "this machine does not let $(id -un) make namespaces (${why%%$'\n'*}): $hint"

    # In the background, because bash runs a trap only when a foreground command has ended. `<&0` keeps
    # the keyboard, which a shell takes away from what runs in the background.
    "${as_ordinary_user[@]}" "${private[@]}" "$@" <&0 &
    namespaces=$!
    trap 'stop_namespaces; trap - INT; kill -INT $$' INT
    trap 'stop_namespaces; exit 143' TERM
    trap 'stop_namespaces; exit 129' HUP
    wait "$namespaces" || code=$?
    exit "$code"
}

stop_namespaces() {
    kill -KILL "$namespaces" 2>/dev/null || true
    wait "$namespaces" 2>/dev/null || true
    printf '%s\nstopped; nothing is left behind\n' "$PLAIN"
}

# --- pods without Kubernetes ----------------------------------------------------------------------

# add_pod NAME ADDRESS GATEWAY: a network namespace with one cable (veth) to this one, as a simple network plugin
# would lay it.
add_pod() {
    local name=$1 address=$2 gateway=$3
    ip netns add "$name"
    ip link add "$name" type veth peer name eth0 netns "$name"
    ip address add "$gateway/32" dev "$name"
    ip link set "$name" up
    ip route add "$address" dev "$name"
    ip -n "$name" link set lo up
    ip -n "$name" address add "$address/32" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" route add "$gateway" dev eth0
    ip -n "$name" route add default via "$gateway"
}
