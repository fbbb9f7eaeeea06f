//! The commands that scripts are made of, each as busybox has it. Files that are not text have a size and a made-up checksum,
//! no content.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::shell::{Data, Fault, Flow, SLEEPS, Said, Shell};
use super::{files, fio, place};
use crate::host::FileSystem;
use crate::kube::actors::objects::digest;

/// All of them.
pub(super) const KNOWN: [&str; 22] = [
    "[",
    "cat",
    "cut",
    "dd",
    "df",
    "echo",
    "exit",
    "false",
    "fio",
    "head",
    "ls",
    "printf",
    "set",
    "sh",
    "sha256sum",
    "sleep",
    "sync",
    "tail",
    "test",
    "tr",
    "true",
    "wc",
];

/// Runs one; the error ends the shell.
pub(super) fn run(shell: &mut Shell<'_>, words: &[&str], input: Option<&Data>, said: &mut Said) -> Flow {
    let text = || input.map_or("", Data::text);
    Ok(match words {
        ["sleep", "infinity"] => return Err(SLEEPS),
        ["true" | "sleep" | "sync", ..] => 0,
        ["false", ..] => 1,
        ["exit", status @ ..] => return Err(status.first().map_or(0, |status| status.parse().unwrap_or(2))),
        ["set", options @ ..] => {
            shell.strict |= options.contains(&"-e");
            shell.strict &= !options.contains(&"+e");
            0
        }
        ["[", words @ .., "]"] | ["test", words @ ..] => test(words, said),
        ["echo", words @ ..] => said.line(&words.join(" "), 0),
        ["printf", format, values @ ..] => {
            said.print(Data::Text(printf(format, values)));
            0
        }
        ["head", "-c", size, paths @ ..] => head(shell, size, paths.first().copied(), input, said),
        ["dd", pairs @ ..] => dd(shell, pairs, input, said),
        ["cat", paths @ ..] => each(shell, "cat", paths, input, said, |data, _, said| said.print(data)),
        ["sha256sum", paths @ ..] => each(shell, "sha256sum", paths, input, said, |data, path, said| {
            said.line(&format!("{}  {path}", data.sha256()), 0);
        }),
        ["wc", "-c", paths @ ..] => each(shell, "wc", paths, input, said, |data, path, said| {
            let name = if path == "-" { String::new() } else { format!(" {path}") };
            said.line(&format!("{}{name}", data.size()), 0);
        }),
        ["tail", "-n", count] => {
            let lines: Vec<&str> = text().lines().collect();
            let skipped = lines.len().saturating_sub(count.parse().unwrap_or(10));
            lines.iter().skip(skipped).fold(0, |_, line| said.line(line, 0))
        }
        ["tr", "-s", letters] => {
            let mut squeezed = String::new();
            for letter in text().chars() {
                if !(letters.contains(letter) && squeezed.ends_with(letter)) {
                    squeezed.push(letter);
                }
            }
            said.print(Data::Text(squeezed));
            0
        }
        ["cut", by, field] => cut(by, field, text(), said),
        ["df", options @ .., path] if options.iter().all(|option| option.starts_with('-')) => {
            df(shell, path, said)
        }
        ["ls", "-la", path] => ls(shell, path, said),
        ["sh", "-c", files::SCRIPT, _, words @ ..] => files::run(shell, words, said),
        ["fio", options @ ..] => fio::run(shell, options, said),
        [word, ..] if KNOWN.contains(word) => {
            said.wrong(&format!("{word}: these arguments are not simulated"), 1)
        }
        [word, ..] => said.wrong(&format!("sh: {word}: not found (simulated)"), 127),
        [] => 0,
    })
}

/// Does something with each file, or with what comes in.
fn each(
    shell: &Shell<'_>,
    name: &str,
    paths: &[&str],
    input: Option<&Data>,
    said: &mut Said,
    does: impl Fn(Data, &str, &mut Said),
) -> i32 {
    if paths.is_empty() {
        does(input.cloned().unwrap_or(Data::Text(String::new())), "-", said);
    }
    let mut status = 0;
    for path in paths {
        match shell.read(path) {
            Some(data) => does(data, path, said),
            None => {
                status = said.wrong(&format!("{name}: can't open '{path}': No such file or directory"), 1);
            }
        }
    }
    status
}

fn test(words: &[&str], said: &mut Said) -> i32 {
    let (a, by, b) = match words {
        ["-n", text] => return i32::from(text.is_empty()),
        ["-z", text] => return i32::from(!text.is_empty()),
        [a, by, b] => (a, by, b),
        _ => return said.wrong("sh: syntax error in a test", 2),
    };
    let holds = match *by {
        "=" => a == b,
        "!=" => a != b,
        _ => {
            let mut numbers = [0_i64; 2];
            for (number, word) in numbers.iter_mut().zip([a, b]) {
                let Ok(read) = word.parse() else { return said.wrong(&format!("sh: {word}: bad number"), 2) };
                *number = read;
            }
            let order = numbers[0].cmp(&numbers[1]);
            match *by {
                "-eq" => order.is_eq(),
                "-ne" => order.is_ne(),
                "-lt" => order.is_lt(),
                "-le" => order.is_le(),
                "-gt" => order.is_gt(),
                "-ge" => order.is_ge(),
                _ => return said.wrong(&format!("sh: {by}: unknown operand"), 2),
            }
        }
    };
    i32::from(!holds)
}

/// `%s` and `%d` are the values in their order.
fn printf(format: &str, values: &[&str]) -> String {
    let (mut text, mut values, mut letters) = (String::new(), values.iter(), format.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '%' => match letters.next() {
                Some('s' | 'd') => text.push_str(values.next().unwrap_or(&"")),
                other => text.extend(other),
            },
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                other => text.extend(other),
            },
            _ => text.push(letter),
        }
    }
    text
}

fn cut(by: &str, field: &str, text: &str, said: &mut Said) -> i32 {
    let by = by.strip_prefix("-d").and_then(|by| by.chars().next());
    let field =
        field.strip_prefix("-f").and_then(|field| field.parse::<usize>().ok()).filter(|field| *field > 0);
    let (Some(by), Some(field)) = (by, field) else {
        return said.wrong("cut: these arguments are not simulated", 1);
    };
    for line in text.lines() {
        let found = if line.contains(by) { line.split(by).nth(field - 1).unwrap_or("") } else { line };
        said.line(found, 0);
    }
    0
}

/// What a device of the kernel gives, so many bytes of it.
fn device(shell: &Shell<'_>, path: &str, size: u64) -> Option<Data> {
    let sha256 = match path {
        "/dev/urandom" | "/dev/random" => digest(&format!("noise of {}", shell.run.uid)),
        "/dev/zero" => digest(&format!("{size} zeros")),
        _ => return None,
    };
    Some(Data::Other { size, sha256 })
}

fn head(shell: &Shell<'_>, size: &str, path: Option<&str>, input: Option<&Data>, said: &mut Said) -> i32 {
    let Ok(size) = size.parse::<u64>() else {
        return said.wrong(&format!("head: invalid number '{size}'"), 1);
    };
    let path = path.unwrap_or("-");
    let whole = if path == "-" { input.cloned() } else { shell.read(path) };
    let Some(data) = device(shell, path, size).or(whole) else {
        return said.wrong(&format!("head: {path}: No such file or directory"), 1);
    };
    let first = usize::try_from(size).unwrap_or(usize::MAX);
    said.print(match data {
        Data::Text(text) => Data::Text(text.chars().take(first).collect()),
        Data::Other { size: whole, sha256 } if whole > size => {
            Data::Other { size, sha256: digest(&format!("{size} of {sha256}")) }
        }
        other @ Data::Other { .. } => other,
    });
    0
}

fn dd(shell: &mut Shell<'_>, pairs: &[&str], input: Option<&Data>, said: &mut Said) -> i32 {
    let pairs: BTreeMap<&str, &str> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
    let get = |key: &str| pairs.get(key).copied().unwrap_or_default();
    let (from, to, block) = (get("if"), get("of"), get("bs").parse().unwrap_or(512_u64).max(1));
    let all = get("count").parse::<u64>().map_or(0, |count| count.saturating_mul(block));
    let found = device(shell, from, all).filter(|_| all > 0);
    let found = found.or_else(|| if from.is_empty() { input.cloned() } else { shell.read(from) });
    let Some(data) = found else {
        return said.wrong(&format!("dd: can't open '{from}': No such file or directory"), 1);
    };
    let in_memory = |system: &FileSystem| matches!(system.kind.as_str(), "tmpfs" | "ramfs");
    if get("iflag") == "direct" && shell.system(from).is_some_and(in_memory) {
        return said.wrong(&format!("dd: can't open '{from}': Invalid argument"), 1);
    }
    let size = data.size();
    let written = if to.is_empty() {
        said.print(data);
        Ok(())
    } else {
        shell.write(to, data)
    };
    match written {
        Ok(()) => {
            let records = format!("{}+{}", size / block, u8::from(size % block > 0));
            let speed = format!(
                "{size} bytes ({}) copied, 0.004000 seconds, {}/s",
                short(size),
                short(size.saturating_mul(250))
            );
            said.wrong(&format!("{records} records in\n{records} records out\n{speed}"), 0)
        }
        Err(Fault::NoSpace(written)) => {
            let done = written / block;
            let records = format!("{}+0 records in\n{done}+0 records out", done + 1);
            said.wrong(&format!("dd: error writing '{to}': No space left on device\n{records}"), 1)
        }
        Err(Fault::ReadOnly) => said.wrong(&format!("dd: can't open '{to}': Read-only file system"), 1),
        Err(Fault::NoDirectory) => {
            said.wrong(&format!("dd: can't open '{to}': No such file or directory"), 1)
        }
    }
}

/// In blocks of a KiB, one line a file system.
fn df(shell: &Shell<'_>, path: &str, said: &mut Said) -> i32 {
    let Some(system) = shell.system(path) else {
        return said.wrong(&format!("df: {path}: can't find mount point"), 1);
    };
    let (all, free) = (system.size / 1024, system.available() / 1024);
    let used = all.saturating_sub(free);
    let share = (used * 100).checked_div(all).unwrap_or(0);
    said.line("Filesystem           1024-blocks    Used Available Capacity Mounted on", 0);
    said.line(&format!("{:<20} {all:>11} {used:>9} {free:>9} {share:>3}% {path}", system.source), 0)
}

fn ls(shell: &Shell<'_>, path: &str, said: &mut Said) -> i32 {
    let directory = place(shell.mounts, path).and_then(|(place, _)| shell.host.directory(&place));
    let Some(directory) = directory else {
        return said.wrong(&format!("ls: {path}: No such file or directory"), 1);
    };
    let row = |mode: &str, links: u8, size: u64, name: &str| {
        format!("{mode}    {links} 65534    65534    {size:>9} Jan  1 00:00 {name}\n")
    };
    let blocks: u64 = directory.files.values().map(|file| file.size.div_ceil(4096) * 4).sum();
    let mut listed = format!("total {blocks}\n");
    listed += &(row("drwxrwsrwx", 2, 19, ".") + &row("drwxr-xr-x", 1, 4096, ".."));
    for (name, file) in &directory.files {
        listed += &row("-rw-r--r--", 1, file.size, name);
    }
    said.print(Data::Text(listed));
    0
}

/// The container's mounts, as the kernel tells them.
pub(super) fn mountinfo(shell: &Shell<'_>) -> String {
    let mut text = String::from(
        "1201 1130 0:231 / / ro,relatime - overlay overlay rw,lowerdir=/var/lib/containerd\n\
         1202 1201 0:233 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
         1203 1201 0:234 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n",
    );
    for (mount, id) in shell.mounts.iter().zip(1210..) {
        let system = shell.host.mounts.get(&mount.place.mount);
        let Some(system) = system.filter(|_| !mount.point.is_empty()) else { continue };
        let gone = !mount.scratch && mount.place.root != "/" && shell.host.directory(&mount.place).is_none();
        let within = match mount.place.root.as_str() {
            "/" if !system.root.is_empty() => "",
            root => root,
        };
        let root =
            format!("{}{}{}", escape(&system.root), escape(within), if gone { "//deleted" } else { "" });
        let options =
            if system.options.is_empty() { "rw,relatime".to_owned() } else { system.options.join(",") };
        let options = match options.strip_prefix("rw") {
            Some(rest) if mount.place.read_only => format!("ro{rest}"),
            _ => options,
        };
        let device = shell.host.mounts.keys().position(|point| *point == mount.place.mount).unwrap_or(0);
        let (point, kind, source) = (escape(&mount.point), &system.kind, escape(&system.source));
        let write = if system.options.iter().any(|option| option == "ro") { "ro" } else { "rw" };
        let more = if kind == "xfs" { ",attr2,inode64,logbufs=8,logbsize=32k,noquota" } else { "" };
        let _ =
            writeln!(text, "{id} 1201 259:{device} {root} {point} {options} - {kind} {source} {write}{more}");
    }
    text
}

/// A number of bytes as busybox shortens it.
fn short(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{}MB", tenths / 10, tenths % 10)
}

/// As the kernel writes blanks in mountinfo.
fn escape(text: &str) -> String {
    text.replace('\\', "\\134").replace(' ', "\\040")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::kube::actors::programs::{Run, shell};

    #[test]
    fn what_is_known_is_found() {
        for command in KNOWN {
            let (said, _) = shell::run(command, &mut Host::default(), &[], Run { uid: "u", now: 0 });
            assert!(!said.contains("not found"), "{command}: {said}");
        }
    }
}
