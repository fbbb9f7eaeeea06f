//! Regular expressions: Talos reads them with Go's `regexp`, nodeprep with the `regex` crate. The two agree on much, so
//! what they agree on is taken, `\d`, `\w`, `\s` and `\b` are written out as the ASCII that Go means, and the rest is
//! refused.

use std::iter::Peekable;
use std::str::Chars;

/// What a compiled pattern may take, in bytes; it is compiled again for each disk.
const SIZE_LIMIT: usize = 1 << 18;

/// Go repeats nothing more often than this.
const MOST_REPEATS: u32 = 1000;

const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// The pattern for the `regex` crate, or why it is not taken.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut reader = Reader {
        rest: pattern.chars().peekable(),
        out: String::new(),
        groups: Vec::new(),
        counted: false,
        last: Last::Nothing,
    };
    while let Some(next) = reader.rest.next() {
        reader.take(next)?;
    }
    regex::RegexBuilder::new(&reader.out)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())?;
    Ok(reader.out)
}

/// What stands before a repetition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// The beginning, an assertion or a repetition, none of which is repeated.
    Nothing,
    One,
    /// A group, and whether something in it is repeated a number of times.
    Group(bool),
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// For each group around: whether what was before in it is repeated a number of times.
    groups: Vec<bool>,
    counted: bool,
    last: Last,
}

impl Reader<'_> {
    fn take(&mut self, next: char) -> Result<(), String> {
        self.last = match next {
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.open()?,
            ')' => self.close()?,
            '*' | '+' | '?' => self.repeat(&next.to_string())?,
            '{' => self.count()?,
            '|' | '^' | '$' => self.push(next, Last::Nothing),
            '.' => self.push(next, Last::One),
            _ => {
                self.literal(next);
                Last::One
            }
        };
        Ok(())
    }

    fn push(&mut self, next: char, last: Last) -> Last {
        self.out.push(next);
        last
    }

    fn literal(&mut self, next: char) {
        self.out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
    }

    fn escape(&mut self) -> Result<Last, String> {
        match self.rest.next() {
            Some('b') => self.out.push_str(r"(?-u:\b)"),
            Some(end @ ('A' | 'z')) => {
                self.out.push('\\');
                self.out.push(end);
            }
            Some(set @ ('d' | 'w' | 's')) => return Ok(self.set("[", set)),
            Some(set @ ('D' | 'W' | 'S')) => return Ok(self.set("[^", set.to_ascii_lowercase())),
            other => {
                self.one(other)?;
                return Ok(Last::One);
            }
        }
        Ok(Last::Nothing)
    }

    fn set(&mut self, open: &str, set: char) -> Last {
        self.out.push_str(open);
        self.out.push_str(members(set));
        self.out.push(']');
        Last::One
    }

    /// The one character that an escape means.
    fn one(&mut self, escaped: Option<char>) -> Result<(), String> {
        match escaped {
            Some(control @ ('a' | 'f' | 'n' | 'r' | 't' | 'v')) => {
                self.out.push('\\');
                self.out.push(control);
            }
            Some('x') => self.hexadecimal()?,
            Some(mark) if mark.is_ascii_punctuation() => self.literal(mark),
            Some(other) => return Err(format!("nodeprep does not know `\\{other}`")),
            None => return Err("ends in a single `\\`".to_owned()),
        }
        Ok(())
    }

    fn hexadecimal(&mut self) -> Result<(), String> {
        let digits: String = match self.rest.next_if_eq(&'{') {
            Some(_) => self.until('}')?,
            None => self.rest.by_ref().take(2).chain(['-'; 2]).take(2).collect(),
        };
        let good = digits.chars().all(|c| c.is_ascii_hexdigit());
        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| good);
        match code.and_then(char::from_u32) {
            Some(found) => self.literal(found),
            None => return Err(format!("`\\x{digits}` is no character")),
        }
        Ok(())
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let mut found = String::new();
        loop {
            match self.rest.next() {
                None => return Err(format!("a `{end}` is missing")),
                Some(next) if next == end => return Ok(found),
                Some(next) => found.push(next),
            }
        }
    }

    fn class(&mut self) -> Result<Last, String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        if self.rest.peek() == Some(&']') {
            return Err("`]` right after `[`: write `\\]`".to_owned());
        }
        loop {
            match self.rest.next() {
                None => return Err("a `[` is not closed".to_owned()),
                Some(']') => break,
                Some('[') => self.named_class()?,
                Some('\\') => match self.rest.next() {
                    Some(set @ ('d' | 'w' | 's')) => {
                        self.out.push_str(members(set));
                        self.no_range()?;
                    }
                    other => self.one(other)?,
                },
                Some(next) => self.literal(next),
            }
            self.range()?;
        }
        self.out.push(']');
        Ok(Last::One)
    }

    fn named_class(&mut self) -> Result<(), String> {
        let name: String = match self.rest.next_if_eq(&':') {
            Some(_) => self.until(':')?,
            None => String::new(),
        };
        if !CLASSES.contains(&name.as_str()) || self.rest.next() != Some(']') {
            return Err("`[` between brackets: write `\\[`".to_owned());
        }
        self.out.push_str(&format!("[:{name}:]"));
        self.no_range()
    }

    fn no_range(&mut self) -> Result<(), String> {
        let mut ahead = self.rest.clone();
        if ahead.next() == Some('-') && ahead.next() != Some(']') {
            return Err("a range can't begin with a class: write `\\-`".to_owned());
        }
        Ok(())
    }

    /// The end of a range, if the character before was its beginning.
    fn range(&mut self) -> Result<(), String> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || matches!(ahead.next(), Some(']') | None) {
            return Ok(());
        }
        self.rest.next();
        self.out.push('-');
        match self.rest.next() {
            Some('\\') => {
                let escaped = self.rest.next();
                self.one(escaped)
            }
            Some('[') | None => Err("a range without an end".to_owned()),
            Some(next) => {
                self.literal(next);
                Ok(())
            }
        }
    }

    fn open(&mut self) -> Result<Last, String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_some() {
            let mut flags = String::new();
            let end = loop {
                match self.rest.next() {
                    Some(flag @ ('i' | 's')) => flags.push(flag),
                    Some(end @ (':' | ')')) => break end,
                    _ => return Err("of groups, `(…)`, `(?:…)`, `(?i)` and `(?s)` are known".to_owned()),
                }
            };
            self.out.push_str(&format!("?{flags}{end}"));
            if end == ')' {
                return Ok(Last::Nothing);
            }
        }
        self.groups.push(std::mem::take(&mut self.counted));
        Ok(Last::Nothing)
    }

    fn close(&mut self) -> Result<Last, String> {
        let before = self.groups.pop().ok_or("a `)` without its `(`")?;
        self.out.push(')');
        let inside = self.counted;
        self.counted |= before;
        Ok(Last::Group(inside))
    }

    fn repeat(&mut self, times: &str) -> Result<Last, String> {
        if self.last == Last::Nothing {
            return Err(format!("`{times}` has nothing to repeat, or repeats a repetition"));
        }
        self.out.push_str(times);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        Ok(Last::Nothing)
    }

    fn count(&mut self) -> Result<Last, String> {
        let inside = self.until('}')?;
        // Only as Go writes a number: no sign, no zero in front.
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MOST_REPEATS && n.to_string() == text);
        let good = match inside.split_once(',') {
            None => number(&inside).is_some(),
            Some((least, "")) => number(least).is_some(),
            Some((least, most)) => matches!((number(least), number(most)), (Some(a), Some(b)) if a <= b),
        };
        if !good {
            return Err(format!("`{{{inside}}}` repeats nothing: write `\\{{` for a brace"));
        }
        if self.last == Last::Group(true) {
            return Err("a number of times, a number of times".to_owned());
        }
        self.counted = true;
        self.repeat(&format!("{{{inside}}}"))
    }
}

/// Go's ASCII classes, for between brackets.
const fn members(set: char) -> &'static str {
    match set {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        _ => r"\t\n\x0C\r ",
    }
}
