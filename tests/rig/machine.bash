# The machine that the rig boots: where its parts are cached and the QEMU command line that starts it.
# Sourced by setup, which boots it to try KVM, and by run.
# shellcheck shell=bash disable=SC2034,SC2054

rig=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
checkout=$(cd "$rig/../.." && pwd -P)
cache=$checkout/target/rig

kernel_tree=$cache/linux         # the kernel package, unpacked
vmlinux=$cache/vmlinux           # its kernel as an ELF file with a PVH entry
initramfs=$cache/initramfs.cpio
settings=$cache/settings         # release=... accel=..., written last: its presence says that the rest is complete

say() { printf 'rig: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 125
}

# boot ACCEL MEMORY_MB CPUS SECONDS SHARE: runs the guest to its end in the foreground; 124 when SECONDS were not enough.
# SHARE is a folder of the host that the guest mounts read-write. It holds the console's log and, when the guest is to
# run something, the FIFOs `stdout` and `stderr`.
boot() {
    local accel=$1 memory=$2 cpus=$3 seconds=$4 share=$5
    local -a machine output=()

    case $accel in
        tcg) machine=(-accel tcg,thread=multi -cpu max) ;;
        kvm) machine=(-accel kvm -cpu host) ;;
        *) fail "no such accelerator: $accel (tcg, kvm)" ;;
    esac

    # FIFOs, because QEMU opens a file chardev with O_TRUNC: pointed at a log it would wipe what is there already.
    if [[ -p $share/stdout ]]; then
        output=(
            -device virtio-serial-pci
            -chardev "file,id=stdout,path=$share/stdout" -device virtserialport,chardev=stdout,name=stdout
            -chardev "file,id=stderr,path=$share/stderr" -device virtserialport,chardev=stderr,name=stderr
        )
    fi

    # --pdeathsig twice: when the caller is killed outright, no guest may stay behind.
    setpriv --pdeathsig KILL timeout --kill-after=5 "$seconds" setpriv --pdeathsig KILL \
        qemu-system-x86_64 -machine q35 "${machine[@]}" -smp "$cpus" -m "$memory" \
        -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$share/console" \
        -kernel "$vmlinux" -initrd "$initramfs" \
        -append "console=ttyS0 quiet panic=-1 rig.guest mitigations=off nokaslr tsc=reliable no_timer_check \
random.trust_cpu=on cryptomgr.notests nowatchdog audit=0 apparmor=0 8250.nr_uarts=1" \
        -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=root,mount_tag=root \
        -fsdev "local,id=share,path=$share,security_model=none,multidevs=remap" \
        -device virtio-9p-pci,fsdev=share,mount_tag=share \
        "${output[@]}" </dev/null >&2
}
