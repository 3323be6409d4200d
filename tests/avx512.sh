#!/bin/sh
# The golden digests with AVX-512, without and with VNNI, where no processor has them: in Bochs, which
# emulates a whole PC with a Linux kernel of Debian 12. Takes minutes, so it is run by hand.
set -eu
cd "$(dirname "$0")/.."
here=$PWD/target/cross/avx512

packages="bochs bochs-term bochsbios vgabios isolinux syslinux-common xorriso cpio bsdutils"
for package in $packages; do
    if ! dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$'; then
        if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
            echo "tests/avx512.sh needs these packages of Debian 12: $packages" >&2
            exit 1
        fi
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >/dev/null
        break
    fi
done
mkdir -p "$here"
if [ ! -d "$here/kernel" ]; then
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    (cd "$here" && rm -f linux-image-*.deb && apt-get download -qq -o APT::Sandbox::User=root "$kernel" && dpkg -x linux-image-*.deb kernel)
fi

cargo build --quiet --locked --release -p althing-golden

# run CPU: boots the kernel with the program as its only process, and reads its serial port. The kernel does
# without what Bochs 2.7 has wrong or hangs on: the sizes of saved registers with XSAVEC and PKU, and others.
run() {
    home=$here/$1
    rm -rf "$home" && mkdir -p "$home/root/lib64" "$home/iso/isolinux"
    cp target/release/althing-golden "$home/root/init"
    for library in $(ldd target/release/althing-golden | grep -o '/[^ ]*'); do
        mkdir -p "$home/root$(dirname "$library")"
        cp -L "$library" "$home/root$library"
    done
    (cd "$home/root" && find . | cpio --quiet -o -H newc) >"$home/iso/initrd"
    cp "$here"/kernel/boot/vmlinuz-* "$home/iso/vmlinuz"
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$home/iso/isolinux/"
    # Twice, as what is in the serial port when the program ends is lost, and the kernel with it.
    cat >"$home/iso/isolinux/isolinux.cfg" <<-EOF
	default golden
	prompt 0
	label golden
	kernel /vmlinuz
	append initrd=/initrd console=ttyS0 rdinit=/init mitigations=off tsc=reliable lpj=1000000 random.trust_cpu=on idle=poll clearcpuid=pku,ospke,xsaves,xsavec,fsrm,umip,rdpid,sha_ni,gfni,vaes,vpclmulqdq -- 1 avx512 avx512
	EOF
    xorriso -as mkisofs -quiet -o "$home/disc.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
        -no-emul-boot -boot-load-size 4 -boot-info-table "$home/iso" 2>/dev/null
    cat >"$home/bochsrc" <<-EOF
	config_interface: textconfig
	display_library: term
	plugin_ctrl: speaker=0
	cpu: model=$1, ips=100000000
	clock: sync=none, time0=local
	megs: 512
	romimage: file=/usr/share/bochs/BIOS-bochs-latest
	vgaromimage: file=/usr/share/vgabios/vgabios.bin
	ata0-master: type=cdrom, path=disc.iso, status=inserted
	boot: cdrom
	com1: enabled=1, mode=file, dev=serial
	log: log
	panic: action=fatal
	EOF
    echo c >"$home/commands"
    (cd "$home" && TERM=xterm exec script -qec "exec bochs-bin -q -f bochsrc -rc commands" screen) \
        </dev/null >/dev/null 2>&1 &
    screen=$!
    seconds=0
    until grep -aqs "same bits\|OTHER BITS\|end Kernel panic" "$home/serial" || [ $seconds -ge 900 ]; do
        sleep 5
        seconds=$((seconds + 5))
    done
    # The emulator takes no other signal.
    for emulator in $(pgrep -P $screen || true); do kill -9 "$emulator" 2>/dev/null || true; done
    wait $screen 2>/dev/null || true
    echo "$1:"
    if grep -aq "avx512 .*same bits" "$home/serial"; then
        echo "  avx512   same bits"
        return
    fi
    grep -a -A1 "Run /init" "$home/serial" || true
    echo "  FAILED; see $home/serial"
    failed=1
}
failed=0
run corei7_skylake_x
run corei7_icelake_u
exit $failed
