//! The files of a volume, as `manifests/drill/files.sh` lists them.

use std::fmt::{self, Display, Write as _};
use std::str::FromStr;

/// A volume's entries at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub written: Written,
    /// The file of which the same run changed one byte.
    pub harmed: Option<Name>,
    /// By their names, each once.
    pub entries: Vec<Entry>,
}

/// Who wrote the files, and when the last byte was written, in seconds since 1970 by the clock of the pod's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The very run that listed them.
    Now(u64),
    /// They were there before.
    Before(u64),
    /// They were there, and nothing says since when: they were not written to their end, or not by a drill.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Name,
    /// As the kernel has it: the type and the permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// In seconds since 1970.
    pub modified: i64,
    pub links: u64,
    /// Of 512 bytes, on the disk.
    pub blocks: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    File,
    Directory,
    Symlink,
    /// A named pipe, a socket or a device.
    Special,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The sha256 of a file's bytes.
    Sum([u8; 32]),
    /// What a symlink says.
    Target(Name),
    Nothing,
}

/// Bytes as the file system keeps them, from the volume's folder on; `.` is that folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Vec<u8>);

impl Entry {
    pub fn kind(&self) -> Type {
        match self.mode >> 12 {
            0o10 => Type::File,
            0o4 => Type::Directory,
            0o12 => Type::Symlink,
            _ => Type::Special,
        }
    }

    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Whether it is the volume's folder itself.
    pub fn is_root(&self) -> bool {
        self.name.0 == b"."
    }
}

impl Type {
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "folder",
            Self::Symlink => "symlink",
            Self::Special => "special file",
        }
    }
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                    bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                    rest = after;
                }
                (b'!'..=b'[' | b']'..=b'~', _) => bytes.push(*first),
                _ => return None,
            }
        }
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// As a listing has it.
    fn escaped(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, byte| {
            match byte {
                b'!'..=b'[' | b']'..=b'~' => text.push(char::from(*byte)),
                _ => _ = write!(text, "\\{byte:03o}"),
            }
            text
        })
    }
}

/// For people: what can't be shown is escaped.
impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in String::from_utf8_lossy(&self.0).chars() {
            if letter.is_control() {
                write!(f, "{}", letter.escape_default())?;
            } else {
                f.write_char(letter)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Listing {
    type Err = String;

    /// The error says what is wrong, and in which line.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = (1_usize..).zip(text.lines());
        let mut next = || lines.next().ok_or_else(|| "the listing ends before its first line".to_owned());
        let (mut number, mut line) = next()?;
        let mut harmed = None;
        if let Some(name) = line.strip_prefix("harmed ") {
            harmed = Some(Name::parse(name).ok_or_else(|| at(number, "a name", name))?);
            (number, line) = next()?;
        }
        let written = written(line).ok_or_else(|| at(number, "when the files were written", line))?;
        let mut entries = Vec::<Entry>::new();
        for (number, line) in lines.by_ref() {
            if let Some(count) = line.strip_prefix("entries ") {
                if count.parse() != Ok(entries.len()) {
                    return Err(format!("the listing has {} of {count} entries", entries.len()));
                }
                if let Some((number, line)) = lines.next() {
                    return Err(at(number, "the end of the listing", line));
                }
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                return match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
                    None => Ok(Self { written, harmed, entries }),
                    Some(pair) => Err(format!("the listing has {} twice", pair[0].name)),
                };
            }
            entries.push(entry(line).ok_or_else(|| at(number, "an entry", line))?);
        }
        Err(format!("the listing ends after {} entries, before its last line", entries.len()))
    }
}

fn at(number: usize, wanted: &str, line: &str) -> String {
    let shown: String = line.chars().take(120).collect();
    format!("line {number} of the listing is not {wanted}: {shown:?}")
}

fn written(line: &str) -> Option<Written> {
    match line.split_once(' ')? {
        ("wrote", time) => time.parse().ok().map(Written::Now),
        ("found", "0") => Some(Written::Unknown),
        ("found", time) => time.parse().ok().map(Written::Before),
        _ => None,
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let name = Name::parse(words.next()?)?;
    let mode = u32::from_str_radix(words.next()?, 16).ok().filter(|mode| *mode <= 0xffff)?;
    let mut entry = Entry {
        name,
        mode,
        uid: words.next()?.parse().ok()?,
        gid: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        modified: words.next()?.parse().ok()?,
        links: words.next()?.parse().ok()?,
        blocks: words.next()?.parse().ok()?,
        what: What::Nothing,
    };
    let what = words.next()?;
    entry.what = match entry.kind() {
        Type::File => What::Sum(sum(what)?),
        Type::Symlink => What::Target(Name::parse(what)?),
        _ => (what == "-").then_some(What::Nothing)?,
    };
    words.next().is_none().then_some(entry)
}

fn sum(hex: &str) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    let digits = hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    for (byte, place) in sum.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(place..place + 2)?, 16).ok()?;
    }
    digits.then_some(sum)
}

/// As the script prints it.
impl Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.harmed {
            writeln!(f, "harmed {}", name.escaped())?;
        }
        match self.written {
            Written::Now(time) => writeln!(f, "wrote {time}")?,
            Written::Before(time) => writeln!(f, "found {time}")?,
            Written::Unknown => writeln!(f, "found 0")?,
        }
        let mut lines: Vec<String> = self.entries.iter().map(line).collect();
        lines.sort();
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "entries {}", self.entries.len())
    }
}

fn line(entry: &Entry) -> String {
    let Entry { name, mode, uid, gid, size, modified, links, blocks, what } = entry;
    let what = match what {
        What::Sum(sum) => sum.iter().map(|byte| format!("{byte:02x}")).collect(),
        What::Target(target) => target.escaped(),
        What::Nothing => "-".to_owned(),
    };
    format!("{} {mode:x} {uid} {gid} {size} {modified} {links} {blocks} {what}", name.escaped())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        vec(1_u8.., 1..12).prop_map(Name)
    }

    fn any_entry() -> impl Strategy<Value = (u32, What)> {
        let file = any::<[u8; 32]>().prop_map(|sum| (0o100_000, What::Sum(sum)));
        let link = name().prop_map(|target| (0o120_000, What::Target(target)));
        let other = prop_oneof![Just(0o040_000), Just(0o010_000), Just(0o140_000)];
        prop_oneof![file, link, other.prop_map(|mode| (mode, What::Nothing))]
    }

    fn listing() -> impl Strategy<Value = Listing> {
        let numbers = (0..0o7777_u32, any::<(u32, u32, u64, i64, u64, u64)>());
        let written = prop_oneof![
            any::<u64>().prop_map(Written::Now),
            (1..u64::MAX).prop_map(Written::Before),
            Just(Written::Unknown)
        ];
        let entries = btree_map(name(), (any_entry(), numbers), 0..8);
        (written, proptest::option::of(name()), entries).prop_map(|(written, harmed, entries)| {
            let entries = entries.into_iter().map(|(name, ((kind, what), (permissions, numbers)))| {
                let (uid, gid, size, modified, links, blocks) = numbers;
                Entry { name, mode: kind | permissions, uid, gid, size, modified, links, blocks, what }
            });
            Listing { written, harmed, entries: entries.collect() }
        })
    }

    const TEXT: &str = "wrote 7\n. 41ff 0 0 6 7 2 0 -\na\\040b a1ff 1 2 1 -5 1 0 x\n\
        c 89ed 1234 5678 3 7 2 8 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nentries 3\n";

    #[test]
    fn an_entry_is_what_its_line_says() {
        let listing: Listing = TEXT.parse().unwrap();
        let [root, link, file] = listing.entries.as_slice() else { panic!("{listing:?}") };
        assert_eq!((listing.written, root.is_root(), root.kind()), (Written::Now(7), true, Type::Directory));
        assert_eq!((link.name.to_string().as_str(), link.kind(), link.modified), ("a b", Type::Symlink, -5));
        assert_eq!(link.what, What::Target(Name(b"x".to_vec())));
        assert_eq!((file.permissions(), file.uid, file.gid, file.links), (0o4755, 1234, 5678, 2));
        assert!(matches!(file.what, What::Sum([0xe3, 0xb0, ..])));
    }

    #[test]
    fn what_is_wrong_with_a_listing_is_said() {
        for (from, to, said) in [
            (TEXT, "", "ends before its first line"),
            ("wrote 7", "wrote x", "line 1 of the listing is not when the files were written: \"wrote x\""),
            ("entries 3", "entries 4", "has 3 of 4 entries"),
            ("entries 3\n", "", "ends after 3 entries"),
            ("entries 3\n", "entries 3\nmore\n", "line 6 of the listing is not the end of the listing"),
            ("\\040", " ", "line 3 of the listing is not an entry"),
            ("\\040", "\\040\\", "line 3 of the listing is not an entry"),
            ("\\040", "\\400", "line 3 of the listing is not an entry"),
            ("e3b0c4", "e3b0c", "line 4 of the listing is not an entry"),
            ("e3b0c4", "+3b0c4", "line 4 of the listing is not an entry"),
            (" -\n", " x\n", "line 2 of the listing is not an entry"),
            ("c 89ed", ". 89ed", "the listing has . twice"),
            ("wrote 7", "sha256sum: can't open './x': Input/output error\nwrote 7", "line 1 "),
        ] {
            let error = TEXT.replacen(from, to, 1).parse::<Listing>().unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
    }

    #[test]
    fn a_name_is_shown_without_what_would_harm_a_terminal() {
        assert_eq!(Name("grün\n\u{1b}[0m".as_bytes().to_vec()).to_string(), "grün\\n\\u{1b}[0m");
    }

    proptest! {
        #[test]
        fn a_listing_is_read_back_as_it_was_printed(listing in listing()) {
            prop_assert_eq!(listing.to_string().parse(), Ok(listing));
        }

        #[test]
        fn no_text_makes_the_reading_panic(
            text in "(wrote 1\n|found 0\n|harmed |entries [0-9]|\\\\[0-9]{0,3}|[0-9a-f]{1,64}|a 81a4 0 0 0 0 1 0 | |\n|é|.){0,12}"
        ) {
            let _ = text.parse::<Listing>();
        }
    }
}
