#!/usr/bin/env bash
# kernels.sh - run a command under another kernel than this machine's: Debian's own kernels, booted by
# qemu in software emulation (no KVM needed, about 3 s to user space, some 10 times slower than native).
# For: does a BPF object load, verify, attach and count there? Not for timing.
#
#   kernels.sh list                           suites that can be tried (kernel line, where seen)
#   kernels.sh fetch SUITE                    download and unpack that suite's cloud kernel (once)
#   kernels.sh headers SUITE                  the same for its kernel headers; prints the folder they are in
#   kernels.sh run SUITE ROOTDIR -- CMD…      boot it with ROOTDIR (a folder with a root filesystem, copied,
#                                             never changed) as / and run CMD as root; exit status is CMD's
# The initial RAM disk and the disk image are made anew for each run; only the kernel is kept, in
# $KERNELS_CACHE; $KERNELS_APPEND goes on the kernel's command line. cmpxchg16b is hidden: its emulation in qemu 7.2 spoils the flags now and then, and
# the kernel's allocator then oopses. Needs: qemu-system-x86 cpio busybox-static kmod e2fsprogs (installed when missing).
set -euo pipefail
CACHE=${KERNELS_CACHE:-/var/tmp/flamefleet-kernels}
MEM=${KERNELS_MEM:-1024}; CPUS=${KERNELS_CPUS:-2}; LIMIT=${KERNELS_TIMEOUT:-300}
die() { echo "kernels.sh: $*" >&2; exit 1; }
need() { local p; for p in qemu-system-x86:qemu-system-x86_64 cpio:cpio busybox-static:busybox kmod:depmod e2fsprogs:mke2fs; do
  command -v "${p#*:}" >/dev/null || apt-get install -y -qq --no-install-recommends "${p%%:*}" >&2; done; }

# Package lists of the suite in $d/apt; sets the array `a` of apt's options.
lists() {
  local suite=$1 d=$CACHE/$1 uri
  mkdir -p "$d/apt/lists/partial" "$d/apt/cache/archives/partial"
  uri=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$d/apt/sources.list"
  a=(-qq -o Dir::Etc::sourcelist="$d/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$d/apt/lists" -o Dir::Cache="$d/apt/cache" -o APT::Sandbox::User=root)
  apt-get "${a[@]}" update >&2
}

headers() {
  local suite=$1 d=$CACHE/$1 v common file a; fetch "$suite"
  [ -e "$d/headers/.ok" ] && return; rm -rf "$d/headers"; mkdir -p "$d/headers"; v=$(cat "$d/version"); lists "$suite"
  common=$(apt-cache "${a[@]}" depends "linux-headers-$v" | awk '/Depends: linux-headers.*common/{print $2; exit}')
  [ -n "$common" ] || die "no headers of $v in $suite"
  (cd "$d/headers" && apt-get "${a[@]}" download "linux-headers-$v" "$common" >&2
   for file in *.deb; do dpkg-deb -x "$file" .; rm "$file"; done); rm -rf "$d/apt"; touch "$d/headers/.ok"
}

fetch() {
  local suite=$1 d=$CACHE/$1 line pkg file a
  [ -e "$d/.ok" ] && return; need; rm -rf "$d"; mkdir -p "$d/root"; lists "$suite"
  pkg=$(apt-cache "${a[@]}" depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}'); [ -n "$pkg" ] || die "no cloud kernel in $suite"
  (cd "$d" && apt-get "${a[@]}" download "$pkg" >&2); file=$(ls "$d"/linux-image-*.deb)
  dpkg-deb -x "$file" "$d/root"; rm -rf "$file" "$d/apt"
  [ -d "$d/root/lib" ] || ln -s usr/lib "$d/root/lib"
  line=$(ls "$d/root/lib/modules"); depmod -b "$d/root" "$line"; echo "$line" >"$d/version"; touch "$d/.ok"
}

run() {
  local suite=$1 rootdir=$2; shift 2; [ "${1:-}" = -- ] && shift
  fetch "$suite"; need
  local d=$CACHE/$suite v w m f size; v=$(cat "$d/version"); w=$(mktemp -d); trap 'rm -rf "$w"' RETURN
  mkdir -p "$w/ini"/{bin,mods,proc,sys,dev,new}; cp "$(command -v busybox)" "$w/ini/bin/busybox"; : >"$w/ini/mods/order"
  for m in virtio_pci virtio_blk ext4; do
    modprobe -d "$d/root" -S "$v" --show-depends "$m" 2>/dev/null | awk '$1=="insmod"{print $2}' | while read -r f; do
      grep -qx "$(basename "$f")" "$w/ini/mods/order" && continue
      cp "$f" "$w/ini/mods/"; basename "$f" >>"$w/ini/mods/order"; done; done
  for f in "$w"/ini/mods/*.xz; do [ -e "$f" ] && { unxz "$f"; sed -i "s/^$(basename "$f")\$/$(basename "${f%.xz}")/" "$w/ini/mods/order"; }; done
  cat >"$w/ini/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox; $B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in $($B cat /mods/order); do $B insmod /mods/$m; done
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; $B sleep 0.2; done
$B mount -t ext4 /dev/vda /new || { echo "KERNELS-STATUS 125"; $B poweroff -f; }
for x in proc sys dev; do $B mkdir -p /new/$x; $B mount --move /$x /new/$x; done
exec $B switch_root /new /bin/sh /.kernels-init
INIT
  chmod +x "$w/ini/init"; (cd "$w/ini" && find . | cpio -o -H newc 2>/dev/null | gzip -1 >"$w/ini.gz")
  printf '%s\n' 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8' \
    'mkdir -p /run /tmp /sys/fs/cgroup; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf; mount -t tracefs tracefs /sys/kernel/tracing; ip link set lo up 2>/dev/null; hostname vm' \
    "cd /; ( $(printf '%q ' "$@") ) >/dev/ttyS1 2>&1 </dev/null; s=\$?; (echo; echo \"KERNELS-STATUS \$s\") >/dev/ttyS1; sync; echo o >/proc/sysrq-trigger; sleep 9" >"$w/kernels-init"
  size=$(( $(du -sm --apparent-size "$rootdir" | cut -f1) * 13 / 10 + 300 ))
  mke2fs -q -t ext4 -O ^has_journal -d "$rootdir" "$w/root.img" "${size}M" >/dev/null
  debugfs -w -R "write $w/kernels-init .kernels-init" "$w/root.img" >/dev/null 2>&1
  # Two serial lines: the kernel's messages on the first would tear the command's output apart.
  # One thread: where one CPU patches code that another thread of qemu 7.2 translates (jump labels), that one
  # may run into the breakpoint after it is gone, and the kernel panics. It takes no longer.
  timeout "$LIMIT" qemu-system-x86_64 -accel tcg,thread=single -cpu max,-cx16 -m "$MEM" -smp "$CPUS" -no-reboot -nic none \
    -display none -monitor none -serial "file:$w/console" -serial stdio \
    -kernel "$d/root/boot/vmlinuz-$v" -initrd "$w/ini.gz" -drive "file=$w/root.img,format=raw,if=virtio,cache=unsafe" \
    -append "console=ttyS0 quiet panic=1 loglevel=3 no_timer_check ${KERNELS_APPEND:-}" </dev/null | tr -d '\r' | tee "$w/log" | grep -avE '^KERNELS-STATUS|^\s*$' || true
  local s; s=$(grep -ao '^KERNELS-STATUS [0-9]*' "$w/log" | tail -1 | cut -d' ' -f2) || true
  [ -n "$s" ] || { cat "$w/console" >&2; s=124; }
  return "$s"
}

case ${1:-} in
  list) echo "bullseye 5.10 | bookworm 6.1 | bookworm-backports, trixie 6.12 | sid newest";;
  fetch) fetch "$2"; cat "$CACHE/$2/version";;
  headers) headers "$2" && echo "$CACHE/$2/headers";;
  run) shift; run "$@";;
  *) sed -n '2,14p' "$0"; exit 2;;
esac
