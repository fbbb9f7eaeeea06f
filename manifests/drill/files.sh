#!/bin/sh
# The files of a drill. For busybox (1.35 or later, nothing else), as root, with a writable /tmp.
#
#   files.sh data FOLDER COUNT BYTES  writes COUNT small files, large ones up to BYTES in all, and odd ones, where nothing is yet; lists
#   files.sh list FOLDER              lists
#   files.sh harm FOLDER              changes one byte of one file, which keeps its size and times, and says `harmed NAME`; lists
#
# A listing is `wrote SECONDS` (this very run wrote the files) or `found SECONDS` (they were there; 0 when nothing says since when),
# a line for each entry, sorted, and `entries NUMBER`. An entry is
#   NAME MODE UID GID SIZE MTIME LINKS BLOCKS WHAT
# with the name from FOLDER on, the mode as the kernel has it in hex (the type is in it), the time in seconds, blocks of 512 bytes. WHAT is
# a file's sha256, a symlink's target, else `-`. In names and targets a byte that is not from `!` to `~`, or is `\`, is written `\ooo`.
set -euo pipefail
export LC_ALL=C
umask 022
verb=$1 folder=$2 done=found
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
cd "$folder"

plain='function plain(name,  i, c, out) {
  if (name !~ /[^!-~]|\\/) return name
  if (!(1 in seen)) for (i = 1; i < 256; i++) { seen[i]; code[sprintf("%c", i)] = i }
  for (i = 1; i <= length(name); i++) {
    c = substr(name, i, 1)
    out = out (c ~ /[!-~]/ && c != "\\" ? c : sprintf("\\%03o", code[c]))
  }
  return out
}'

# Reads first what sha256sum said, then what stat said, in the same order: a name ends where the other one says so, whatever is in it.
entries='
function wrong(why) { print "the listing: " why >"/dev/stderr"; failed = 1; exit 1 }
what == "sums" { sum[++sums] = $0; next }
{
  name = $0
  for (i = 0; i < 7; i++) name = substr(name, index(name, " ") + 1)
  kind = substr($1, 1, 1)
  is = "-"
  if (kind == "a") {
    target = substr(name, length(name) - $4, $4)
    link = name
    name = substr(link, 2, length(link) - $4 - 8)
    if (link != "\047" name "\047 -> \047" target "\047") wrong("a link is not understood: " link)
    is = plain(target)
  }
  if (kind == "8") {
    line = sum[++used]
    for (left = gsub(/\n/, "\n", name); left > 0; left--) line = line "\n" sum[++used]
    is = substr(line, 1, 64)
    if (substr(line, 65) != "  " name) wrong("no checksum of " name)
  }
  if (name != "." && sub(/^\.\//, "", name) != 1) wrong("a name is not understood: " name)
  print plain(name), $1, $2, $3, $4, $5, $6, $7, is
}
END { if (!failed && used != sums) wrong("files came or went meanwhile") }'

list() {
  # What a restore leaves in a volume is nobody's file. Through pipes: what xargs runs may turn a file of names back to its begin.
  find . -path ./.velero -prune -o -print0 | xargs -0 -r stat -c '%f %u %g %s %Y %h %b %N//' >"$tmp/stats"
  find . -path ./.velero -prune -o -type f -print0 | xargs -0 -r sha256sum >"$tmp/sums"
  awk "$plain $entries" what=sums "$tmp/sums" what=stats RS='//\n' "$tmp/stats" >"$tmp/entries"
  echo "$done $(cat .wrote 2>/dev/null || echo 0)"
  sort "$tmp/entries"
  echo "entries $(($(wc -l <"$tmp/entries")))"
}

data() {
  count=$1 bytes=$2
  # What was begun and not ended is written anew; what somebody else wrote, or a restore, stays as it is.
  if [ ! -e .begun ] && [ -n "$(ls -A | grep -vx -e .velero -e lost+found)" ]; then return; fi
  find . -mindepth 1 -maxdepth 1 ! -name .velero ! -name lost+found -exec rm -rf {} +
  : >.begun
  mkdir -p large odd/nothing odd/deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16 odd/setgid odd/sticky odd/old-folder odd/closed
  small "$count"
  large $((bytes > count * 3000 + 8 ? bytes - count * 3000 : 8))
  odd
  sync
  date +%s >.wrote
  rm .begun
  sync
  done=wrote
}

# One process writes them all: a line of noise for each, of which it takes a part. They are 3000 bytes on the average.
small() {
  awk -v "count=$1" 'BEGIN { print "small"; for (i = 0; i < count; i += 100) printf "small/%03d\n", i / 100 }' | xargs mkdir -p
  head -c $(($1 * 4500)) /dev/urandom | base64 -w 6000 | awk '{
    file = sprintf("small/%03d/%d", int(n / 100), n)
    printf "%s", substr($0, 1, 1 + n++ * 7919 % 6000) >file
    close(file)
  }'
  written=$(($(find small -type f -size +0c | wc -l)))
  if [ "$written" != "$1" ]; then
    # awk says nothing of a full disk; dd does.
    dd if=/dev/zero of=small/more bs=1048576 count=16 conv=fsync status=none
    echo "$written of $1 small files were written" >&2
    exit 1
  fi
  find small -type f -name '*3' -print0 | xargs -0 -r chown 1000:1000
  find small -type f -name '*5' -print0 | xargs -0 -r touch -d @981173106
  find small -type f -name '*7' -print0 | xargs -0 -r chmod 0640
}

large() {
  noise $(($1 / 2)) large/1
  noise $(($1 / 4)) large/2
  noise $(($1 / 8)) large/3
  noise $(($1 / 8)) large/4
}

noise() { dd if=/dev/urandom of="$2" bs=1048576 count="$1" iflag=count_bytes status=none; }

odd() (
  cd odd
  : >empty
  echo deep >deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/file
  truncate -s 8388608 sparse
  dd if=/dev/urandom of=sparse bs=65536 count=1 seek=64 conv=notrunc status=none
  noise 5000 one-of-two
  ln one-of-two two-of-two
  ln -s ../large/1 link
  ln -s 'not there/at all' dangling
  echo names >./-dash
  echo names >'with  blanks '
  echo names >"quotes ' and \""
  echo names >'back\slash'
  echo names >'star *'
  echo names >'größe-日本-🚀'
  echo names >'two
lines'
  for mode in 0000 0400 0600 0755 4755 2755; do
    echo "$mode" >"mode-$mode"
    chmod "$mode" "mode-$mode"
  done
  for owner in 1234:5678 65534:65534 0:1000660000; do
    echo "$owner" >"owner-$owner"
    chown "$owner" "owner-$owner"
  done
  chown -h 1234:5678 dangling
  touch -h -d @981173106 link
  echo old >old
  touch -d @1 old
  chown 1234:5678 setgid
  chmod 2775 setgid
  chmod 1777 sticky
  echo closed >closed/file
  chmod 0700 closed
  touch -d @981173106 old-folder
)

harm() {
  line='
'
  find . -path ./.velero -prune -o -type f -links 1 -size +0c ! -path "*$line*" ! -path ./.wrote -print | sort >"$tmp/names"
  file=$(sed -n "$(($(wc -l <"$tmp/names") / 2 + 1))p" "$tmp/names")
  [ -n "$file" ] || { echo "there is no file to harm" >&2; exit 1; }
  at=$(($(stat -c %s "$file") / 2))
  byte=$(dd if="$file" bs=1 skip="$at" count=1 status=none | od -An -tu1)
  touch -r "$file" "$tmp/times"
  printf "\\$(printf %03o $(((byte + 1) % 256)))" | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
  touch -r "$tmp/times" "$file"
  sync
  printf '%s' "${file#./}" | awk "$plain"'{ print "harmed", plain($0) }'
}

shift 2
case $verb in
  data) data "$@" ;;
  harm) harm ;;
  list) ;;
  *) echo "files.sh: $verb is neither data, list nor harm" >&2; exit 2 ;;
esac
list
