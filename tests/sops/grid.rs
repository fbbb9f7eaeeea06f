//! Awkward documents, made from a seed, under every rule that `.sops.yaml` knows, both ways against the real sops: `e2e/sops-test`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodeprep::error::{Error, Kind, Result};
use nodeprep::secrets::{Environment, Format, Identities, NewKey, decrypt, encrypt, settings_for};
use nodeprep::yaml::Stream;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use secrecy::ExposeSecret as _;

use super::{now, values};

const RULES: [&str; 12] = [
    "",
    "encrypted_regex: ^(data|stringData)$",
    "unencrypted_regex: ^(kind|metadata|a|b)$",
    "encrypted_suffix: _enc",
    "unencrypted_suffix: _plain",
    "encrypted_comment_regex: \"sops:enc\"",
    "unencrypted_comment_regex: \"sops:plain\"",
    "mac_only_encrypted: true",
    "{encrypted_regex: \"^[a-m]\", mac_only_encrypted: true}",
    "{unencrypted_regex: \"[n-z]\", mac_only_encrypted: true}",
    "{encrypted_comment_regex: \"sops:enc\", mac_only_encrypted: true}",
    "{unencrypted_comment_regex: \"sops:plain\", mac_only_encrypted: true}",
];

/// The reasons for which a document may be refused that sops takes.
const REFUSALS: [&str; 7] = [
    "above an item that is not written",
    "the lines end with CR LF",
    "anchors and aliases cannot be used",
    "only text can be a key",
    "tags cannot be used",
    "a document of the file is empty",
    "the tag ",
];

/// Where a comment stands so that go-yaml sees it as another collection's, or as the metadata's, sops may lose it.
const OTHER_COMMENTS: &str = "other comments";

/// Comments where collections end: each of these was bound to another place once, or could be.
const GAPS: &str = include_str!("gaps.txt");

struct Maker {
    rng: StdRng,
    out: String,
    anchors: usize,
    keys: usize,
    /// How far a level is indented.
    step: usize,
}

impl Maker {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.choose(&mut self.rng).copied().unwrap_or_default()
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        let stem = self.pick(&[
            "a",
            "b",
            "data",
            "stringData",
            "kind",
            "metadata",
            "k",
            "z",
            "über",
            "with space",
            "x.y/z",
            "yes",
            "\"q\"",
            "'s: t'",
            "~x",
            "n",
            "_",
        ]);
        let tail = self.pick(&["", "", "", "_enc", "_plain", "_unencrypted"]);
        match stem.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                format!("{}{}{tail}{quote}", stem.trim_end_matches(quote), self.keys)
            }
            _ => {
                format!("{stem}{}{tail}", if self.chance(30) { String::new() } else { self.keys.to_string() })
            }
        }
    }

    fn comment(&mut self) -> &'static str {
        self.pick(&[
            "# c",
            "#c",
            "# sops:enc",
            "# sops:plain",
            "# é: [x] \"y\" ",
            "#\tt",
            "# a # b",
            "## x",
            "# - y: z",
        ])
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// Empty lines and comments on lines of their own, most of them where the next entry is.
    fn between(&mut self, indent: usize) {
        for _ in 0..2 {
            if self.chance(12) {
                self.out.push('\n');
            }
            if self.chance(22) {
                let offset = self.rng.random_range(0..=2) * self.step;
                let column = if self.chance(70) { indent } else { indent.saturating_sub(self.step) + offset };
                self.pad(column);
                let comment = self.comment();
                self.out.push_str(comment);
                self.out.push('\n');
            }
        }
    }

    fn line_end(&mut self) {
        if self.chance(18) {
            let gap = self.pick(&[" ", "  ", "\t"]);
            self.out.push_str(gap);
            let comment = self.comment();
            self.out.push_str(comment);
        } else if self.chance(5) {
            self.out.push(' ');
        }
        self.out.push('\n');
    }

    fn one_line_scalar(&mut self, flow: bool) -> String {
        const BOTH: [&str; 39] = [
            "x",
            "two words",
            "5",
            "-3",
            "0777",
            "0x1F",
            "0o17",
            "1_000",
            "3.14",
            "1.0",
            "1e3",
            "0.000001",
            ".5",
            ".inf",
            "-.Inf",
            "true",
            "False",
            "yes",
            "on",
            "null",
            "~",
            "2024-05-06",
            "2024-05-06T07:08:09.120Z",
            "2024-05-06 07:08:09",
            "2024-05-06T07:08:09+02:00",
            "12:30",
            "\"\"",
            "''",
            "\"a: b # c\"",
            "'it''s'",
            "\"t\\tn\\nq\\\"\"",
            "\"\\u00fc \\x41\"",
            "grüße",
            "v1.2.3",
            "\"42\"",
            "'true'",
            "http://x/y?z=1",
            "a#b",
            "9223372036854775807",
        ];
        const BLOCK: [&str; 6] = ["a, b", "x]y", "-", "=", "<<", "\"long "];
        if flow || self.chance(90) {
            let text = self.pick(&BOTH);
            // A dash alone or a `?` would start something else.
            return text.to_owned();
        }
        match self.pick(&BLOCK) {
            "\"long " => format!("\"long {}\"", "words ".repeat(40)),
            "-" => "--x".to_owned(),
            "<<" => "<<x".to_owned(),
            other => other.to_owned(),
        }
    }

    /// A scalar behind `key:` or a dash; `indent` is the column of what is below.
    fn scalar(&mut self, indent: usize) {
        if self.chance(6) {
            // nothing is written at all
            return self.line_end();
        }
        if self.chance(22) {
            return self.block_scalar(indent);
        }
        if self.chance(5) {
            let margin = " ".repeat(indent);
            let text = self
                .pick(&["one\n@two", "\"one\n\n@two \\\n@three\"", "'one\n@it''s\n\n@x'"])
                .replace('@', &margin);
            self.out.push(' ');
            self.out.push_str(&text);
            return self.line_end();
        }
        self.out.push(' ');
        let text = self.one_line_scalar(false);
        self.out.push_str(&text);
        self.line_end();
    }

    fn block_scalar(&mut self, indent: usize) {
        let style = self.pick(&["|", ">"]);
        let chomp = self.pick(&["", "", "-", "+", "+"]);
        let deeper = self.chance(25);
        let explicit = if deeper { self.step.to_string() } else { String::new() };
        self.out.push_str(&format!(" {style}{explicit}{chomp}"));
        self.line_end();
        let margin = " ".repeat(indent);
        // A first line that is further right needs the indicator.
        // sops writes such a text into a list as what is no YAML, or another text: the fixture `kept-blocks` has some.
        let first = if deeper && self.chance(20) { "  first" } else { "first" };
        for line in [first, "", "# no comment", "  more", "last: x"] {
            if self.chance(60) || line == first {
                if line.is_empty() {
                    self.out.push('\n');
                } else {
                    self.out.push_str(&format!("{margin}{line}\n"));
                }
            }
        }
        if self.chance(40) {
            self.out.push('\n');
        }
    }

    fn flow(&mut self, depth: usize) -> String {
        let count = self.rng.random_range(0..3);
        if self.chance(50) {
            let items: Vec<_> = (0..count).map(|_| self.flow_value(depth)).collect();
            return format!("[{}]", items.join(", "));
        }
        let items: Vec<_> = (0..count)
            .map(|_| {
                let key = self.key();
                format!("{key}: {}", self.flow_value(depth))
            })
            .collect();
        format!("{{{}}}", items.join(", "))
    }

    fn flow_value(&mut self, depth: usize) -> String {
        if depth > 0 && self.chance(25) { self.flow(depth - 1) } else { self.one_line_scalar(true) }
    }

    fn anchor(&mut self) {
        if self.chance(1) {
            self.anchors += 1;
            self.out.push_str(&format!(" &x{}", self.anchors));
        }
    }

    /// What stands behind `key:`.
    fn value(&mut self, indent: usize, depth: usize) {
        let below = indent + self.step;
        match self.rng.random_range(0..100) {
            0..25 if depth > 0 => {
                self.anchor();
                self.line_end();
                self.map(below, depth - 1);
            }
            25..45 if depth > 0 => {
                self.line_end();
                let dash = if self.chance(50) { indent } else { below };
                self.list(dash, depth - 1);
            }
            45..55 => {
                self.out.push(' ');
                let flow = self.flow(2);
                self.out.push_str(&flow);
                self.line_end();
            }
            55 if self.anchors > 0 => {
                self.out.push_str(&format!(" *x{}", self.anchors));
                self.line_end();
            }
            _ => {
                self.anchor();
                self.scalar(below);
            }
        }
    }

    fn map(&mut self, indent: usize, depth: usize) {
        for _ in 0..self.rng.random_range(1..5) {
            self.between(indent);
            self.pad(indent);
            self.entry(indent, depth);
        }
    }

    fn entry(&mut self, indent: usize, depth: usize) {
        if self.chance(2) {
            self.out.push_str("<<: {m: 1, n: x}");
            return self.line_end();
        }
        if self.chance(2) && depth > 0 {
            self.out.push_str("!!merge <<:");
            self.line_end();
            return self.map(indent + self.step, 0);
        }
        let key = self.key();
        self.out.push_str(&format!("{key}:"));
        self.value(indent, depth);
    }

    fn list(&mut self, dash: usize, depth: usize) {
        for _ in 0..self.rng.random_range(1..4) {
            self.between(dash);
            self.pad(dash);
            self.out.push('-');
            match self.rng.random_range(0..100) {
                0..25 => {
                    self.out.push(' ');
                    self.entry(dash + 2, depth);
                    if self.chance(60) {
                        self.map(dash + 2, depth.saturating_sub(1));
                    }
                }
                25..32 if depth > 0 => {
                    self.out.push(' ');
                    self.list(dash + 2, depth - 1);
                }
                32..40 => {
                    self.out.push(' ');
                    let flow = self.flow(1);
                    self.out.push_str(&flow);
                    self.line_end();
                }
                _ => self.scalar(dash + self.step),
            }
        }
    }
}

/// A text that YAML can hold; keys that come twice make it invalid.
fn document(seed: u64) -> String {
    for attempt in 0.. {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1000) + attempt);
        let step = if rng.random_bool(0.6) { 2 } else { 4 };
        let mut maker = Maker { rng, out: String::new(), anchors: 0, keys: 0, step };
        let documents = if maker.chance(12) { 2 } else { 1 };
        for number in 0..documents {
            if number > 0 {
                maker.out.push_str("---\n");
                maker.anchors = 0;
            }
            maker.map(0, 3);
            maker.between(0);
        }
        if maker.chance(10) && maker.out.ends_with('\n') {
            maker.out.pop();
        }
        if maker.chance(8) {
            maker.out = maker.out.replace('\n', "\r\n");
        }
        if Stream::parse(maker.out.as_str()).is_ok() {
            return maker.out;
        }
    }
    String::new()
}

struct Lab {
    sops: PathBuf,
    dir: PathBuf,
    key_file: PathBuf,
    identities: Identities,
    recipients: String,
}

impl Lab {
    /// What the real sops makes of a file, or what it says.
    fn sops(&self, verb: &str, dir: &Path, text: &str) -> std::result::Result<String, String> {
        let path = dir.join(format!("{verb}.yaml"));
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        let output = Command::new(&self.sops)
            .args(["--disable-version-check", "--config"])
            .arg(dir.join(".sops.yaml"))
            .arg(verb)
            .arg(&path)
            .env_clear()
            .env("HOME", &self.dir)
            .env("SOPS_AGE_KEY_FILE", &self.key_file)
            .output()
            .map_err(|error| error.to_string())?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            String::from_utf8(output.stdout).map_err(|error| error.to_string())
        } else {
            Err(errors)
        }
    }

    /// Both ways; what differs.
    fn compare(
        &self,
        number: usize,
        text: &str,
        rule: &str,
        refused: &mut BTreeMap<String, usize>,
    ) -> Result<Vec<String>> {
        let dir = self.dir.join(number.to_string());
        let failed = |error: std::io::Error| Error::failed(error.to_string());
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let merged = if rule.is_empty() {
            String::new()
        } else if rule.starts_with('{') {
            format!("<<: {rule}")
        } else {
            rule.to_owned()
        };
        let config = format!("creation_rules:\n  - age: {}\n    {merged}\n", self.recipients);
        std::fs::write(dir.join(".sops.yaml"), config).map_err(failed)?;
        let settings = settings_for(&dir.join("encrypt.yaml"), &[], &Environment::default())?;

        let mut wrong = Vec::new();
        let theirs = self.sops("encrypt", &dir, text);
        let expected = theirs.as_ref().ok().map(|sealed| self.sops("decrypt", &dir, sealed));
        let ours = encrypt(text.as_bytes(), Format::Yaml, &settings, now());
        match (&ours, &expected) {
            (Err(error), Some(Ok(_))) => wrong.extend(refusal("encrypt", error, refused)),
            (Err(_), _) => *refused.entry("both refuse".to_owned()).or_default() += 1,
            (Ok(sealed), _) => match (self.sops("decrypt", &dir, sealed), &expected) {
                (Ok(back), Some(Ok(expected))) => {
                    wrong.extend(difference("sops reads ours", &back, expected, text)?)
                }
                // It found the MAC right, which is over every value that it read.
                (Ok(_), _) => *refused.entry("only sops refuses to encrypt".to_owned()).or_default() += 1,
                (Err(why), Some(_)) => wrong.push(format!("sops does not read ours: {why}")),
                // Whoever reads with go-yaml cannot read the plain text either.
                (Err(_), None) => *refused.entry("sops reads neither text".to_owned()).or_default() += 1,
            },
        }
        if let (Ok(sealed), Some(Ok(expected))) = (&theirs, &expected) {
            match decrypt(sealed, Format::Yaml, &self.identities) {
                Ok(back) => wrong.extend(difference("we read theirs", back.expose_text()?, expected, text)?),
                Err(error) => wrong.extend(refusal("decrypt", &error, refused)),
            }
        }
        if let Some(Ok(expected)) = expected.as_ref().filter(|_| wrong.is_empty()) {
            wrong.extend(self.misread(&dir, expected, refused));
        }
        let sealed = ours.as_deref().unwrap_or_default();
        let theirs = theirs.unwrap_or_else(|why| why);
        Ok(wrong
            .into_iter()
            .map(|what| {
                format!("{number} ({rule}): {what}\n{text}\n--- ours\n{sealed}\n--- theirs\n{theirs}")
            })
            .collect())
    }
}

impl Lab {
    /// What sops decrypts is not always YAML (block scalars in lists); then sops cannot read it either.
    fn misread(&self, dir: &Path, theirs: &str, refused: &mut BTreeMap<String, usize>) -> Option<String> {
        let error = Stream::parse(theirs).err()?;
        if self.sops("encrypt", dir, theirs).is_ok() {
            return Some(format!("only sops reads this ({}):\n{theirs}", error.what));
        }
        *refused.entry("sops does not read what it wrote".to_owned()).or_default() += 1;
        None
    }
}

/// Counts a refusal whose reason is known; one that is not is a difference.
fn refusal(way: &str, error: &Error, refused: &mut BTreeMap<String, usize>) -> Option<String> {
    match REFUSALS.iter().find(|reason| error.what.contains(**reason)) {
        Some(reason) if error.kind == Kind::Invalid => {
            *refused.entry(format!("{way}: {reason}")).or_default() += 1;
            None
        }
        _ => Some(format!("{way} refused: {}", error.what)),
    }
}

/// How two plain texts differ in their values or in their comments. What sops writes is not always the YAML that it means (block
/// scalars in lists): then the plain text counts, or its lines.
fn difference(way: &str, text: &str, expected: &str, plain: &str) -> Result<Option<String>> {
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    if sorted(text) == sorted(expected) {
        return Ok(None);
    }
    // sops writes 1000.0 as 1000.
    let shown = |text: &str| -> Result<String> {
        Ok(format!("{:?}", values(text)?).replace("Float(", "Int(").replace(".0)", ")"))
    };
    let Ok(found) = shown(text) else { return Ok(Some(format!("{way}, no YAML:\n{text}"))) };
    if found != shown(plain)? && shown(expected).ok().as_ref() != Some(&found) {
        return Ok(Some(format!("{way}, other values:\n{text}\n--- expected\n{expected}")));
    }
    let (found, known) = (comments(text)?, comments(plain)?);
    let wanted = comments(expected).unwrap_or_else(|_| known.clone());
    // Behind a collection that is empty sops loses them; an alias takes those of its target along.
    let kept = wanted.iter().all(|comment| found.contains(comment) || !known.contains(comment));
    let right = found == wanted
        || (kept && found.len() <= known.len() && found.iter().all(|one| known.contains(one)));
    Ok((!right).then(|| format!("{way}, {OTHER_COMMENTS}:\n{text}\n--- expected\n{expected}")))
}

fn comments(text: &str) -> Result<Vec<String>> {
    let stream = Stream::parse(text)?;
    let spans = stream.documents().iter().flat_map(|document| &document.comments);
    let mut comments: Vec<_> = spans.map(|span| stream.slice(span).trim().to_owned()).collect();
    comments.sort();
    Ok(comments)
}

#[test]
#[ignore = "needs the real sops"]
fn awkward_documents_go_both_ways_under_every_rule() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    let (key, classic) = (NewKey::post_quantum(now()), NewKey::generate(now()));
    let lab = Lab {
        sops: std::env::var_os("NODEPREP_SOPS").map_or_else(|| "sops".into(), PathBuf::from),
        dir: dir.path().to_owned(),
        key_file: dir.path().join("key.txt"),
        identities: Identities::from_text(key.to_text().expose_secret())?,
        recipients: format!("{},{}", classic.recipient(), key.recipient()),
    };
    key.write(&lab.key_file)?;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, count) = (number("NODEPREP_GRID_SEED").unwrap_or(1), number("NODEPREP_GRID").unwrap_or(300));
    let gaps = GAPS.split("\n====\n").map(|text| format!("{}\n", text.trim_end_matches('\n')));
    let texts: Vec<String> = gaps.chain((0..count).map(|number| document(seed + number))).collect();
    let half = |remainder: usize| -> Result<(Vec<String>, BTreeMap<String, usize>)> {
        let (mut wrong, mut refused) = (Vec::new(), BTreeMap::new());
        for (number, text) in texts.iter().enumerate().filter(|(number, _)| number % 2 == remainder) {
            let rule = RULES[(number / 2) % RULES.len()];
            wrong.extend(lab.compare(number, text, rule, &mut refused)?);
        }
        Ok((wrong, refused))
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        (half(0), other.join().unwrap_or_else(|_| Err(Error::failed("the other half panicked"))))
    });
    let ((mut wrong, mut refused), (more, others)) = (first?, second?);
    wrong.extend(more);
    for (reason, count) in others {
        *refused.entry(reason).or_default() += count;
    }
    let (comments, wrong): (Vec<_>, Vec<_>) =
        wrong.into_iter().partition(|what| what.contains(OTHER_COMMENTS));
    let summary =
        format!("{} documents, {} with other comments, refused: {refused:#?}\n", texts.len(), comments.len());
    let _ = std::io::stderr().write_all(summary.as_bytes());
    if let Some(path) = std::env::var_os("NODEPREP_GRID_OUT") {
        let _ = std::fs::write(path, [wrong.clone(), comments.clone()].concat().join("\n==========\n"));
    }
    assert!(wrong.is_empty(), "{} of {} differ; the first:\n{}", wrong.len(), texts.len(), wrong[0]);
    assert!(comments.len() * 25 < texts.len(), "{}", comments.join("\n==========\n"));
    let refusals: usize = refused.values().sum();
    assert!(refusals * 4 < texts.len() * 2, "{refused:#?}");
    Ok(())
}
