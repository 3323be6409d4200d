# Debian's packages for tests; to be read by scripts with `.`.

# need PACKAGE…: installs those that are missing, if it may.
need() {
    installed=$(dpkg-query --show --showformat '${Status}\n' "$@" 2>/dev/null | grep -c '^install ok installed$' || true)
    if [ "$installed" != $# ]; then
        if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
            echo "$0 needs these packages of Debian 12: $*" >&2
            exit 1
        fi
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
    fi
}
