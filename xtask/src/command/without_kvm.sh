# SPDX-License-Identifier: MIT
# Runs its arguments where there is no /dev/kvm; in a mount namespace of its own.
[ -e /dev/kvm ] || exec "$@"
copy=$(mktemp -d) && mount -t tmpfs -o mode=755 dev "$copy" || exit
for file in /dev/*; do
    if [ "$file" = /dev/kvm ]; then
        continue
    elif [ -d "$file" ] && [ ! -L "$file" ]; then
        mkdir "$copy/${file##*/}" && mount --rbind "$file" "$copy/${file##*/}" || exit
    else
        cp -a "$file" "$copy" || exit
    fi
done
mount --move "$copy" /dev && rmdir "$copy" && exec "$@"
