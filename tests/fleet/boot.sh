# Makes a host of the namespaces that it runs in, and becomes its first process: an SSH server.
# Needs: FOLDER (of the host), NAME, MEMORY_FOLDER, SHM_MB, HIDDEN and BOUND (folders, a:b), PUBLIC_KEY, HOSTS_FILE.
set -e
mount --make-rprivate /
ROOT=$FOLDER/root
mkdir -p "$FOLDER"/{root,upper,work,home,tmp}
find "$FOLDER/tmp" -mindepth 1 -delete # as many systems do
chmod 1777 "$FOLDER/tmp"
chmod 700 "$FOLDER/home"
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t sysfs sysfs "$ROOT/sys"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/dev"
for device in null zero full random urandom tty; do
    touch "$ROOT/dev/$device"
    mount --bind "/dev/$device" "$ROOT/dev/$device"
done
mkdir "$ROOT"/dev/{pts,shm,mqueue}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$ROOT/dev/pts"
ln -s pts/ptmx "$ROOT/dev/ptmx"
ln -s /proc/self/fd "$ROOT/dev/fd"
ln -s /proc/self/fd/0 "$ROOT/dev/stdin"
ln -s /proc/self/fd/1 "$ROOT/dev/stdout"
ln -s /proc/self/fd/2 "$ROOT/dev/stderr"
mount -t tmpfs -o "mode=1777,size=${SHM_MB}m" tmpfs "$ROOT/dev/shm"
mount -t tmpfs -o mode=755,size=64m tmpfs "$ROOT/run"
mkdir -p "$ROOT/run/sshd" "$ROOT/run/lock"
# What this host may see of its own limits: Ray and the memory watch read it.
mount -t tmpfs -o mode=755 tmpfs "$ROOT/sys/fs/cgroup"
if [ -n "$MEMORY_FOLDER" ]; then
    mkdir -p "$ROOT/sys/fs/cgroup/memory"
    mount --bind "$MEMORY_FOLDER" "$ROOT/sys/fs/cgroup/memory"
fi
mount --bind "$FOLDER/tmp" "$ROOT/tmp"
mount --bind "$FOLDER/home" "$ROOT/root"
IFS=:
for folder in $HIDDEN; do # below /tmp or the home it is not there anyway
    [ -d "$ROOT$folder" ] || continue
    mount -t tmpfs -o size=1m,mode=755 tmpfs "$ROOT$folder"
done
for folder in $BOUND; do
    mkdir -p "$ROOT$folder"
    mount --bind "$folder" "$ROOT$folder"
    mount -o remount,bind,ro "$ROOT$folder"
done
unset IFS
mkdir -p -m700 "$ROOT/root/.ssh" "$ROOT/etc/ssh/lab"
cp "$PUBLIC_KEY" "$ROOT/root/.ssh/authorized_keys"
chmod 600 "$ROOT/root/.ssh/authorized_keys"
[ -e "$ROOT/root/.bashrc" ] || touch "$ROOT/root/.bashrc" "$ROOT/root/.profile"
cp "$HOSTS_FILE" "$ROOT/etc/hosts"
[ -e "$ROOT/etc/ssh/lab/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$ROOT/etc/ssh/lab/key"
cat > "$ROOT/etc/ssh/lab/sshd_config" <<X
Port 22
HostKey /etc/ssh/lab/key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
UseDNS no
MaxStartups 100:30:200
MaxSessions 100
Subsystem sftp internal-sftp
X
hostname "$NAME"
mkdir -p "$ROOT/.old"
cd "$ROOT"
pivot_root . .old
umount -l /.old
cd /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    /usr/sbin/sshd -D -e -f /etc/ssh/lab/sshd_config
