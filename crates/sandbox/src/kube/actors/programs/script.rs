//! A shell script as it is read: so much of the shell's language as the programs of pods that end are written in.

use super::files;

/// What is done one after the other.
pub(super) type Script = Vec<Step>;

/// Commands with pipes between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub when: When,
    /// Its success is a failure, and the other way round.
    pub not: bool,
    pub pipe: Vec<Command>,
}

/// After what a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    Success,
    Failure,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub does: Does,
    pub redirects: Vec<Redirect>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Does {
    Simple { sets: Vec<(String, Word)>, words: Vec<Word> },
    Group(Script),
    If { condition: Script, then: Script, otherwise: Script },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    From(Word),
    To {
        fd: usize,
        path: Word,
        append: bool,
    },
    /// To where the other goes.
    Like {
        fd: usize,
        other: usize,
    },
}

pub(super) type Word = Vec<Part>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub what: What,
    /// It is not split at blanks.
    pub quoted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Text(String),
    /// With the longest end that looks so cut off.
    Variable {
        name: String,
        cut: Option<String>,
    },
    Output(Script),
    Number(Word),
}

/// Where a command ends.
const ENDS: [char; 8] = ['\n', ';', '|', '&', '<', '>', '(', ')'];
/// Words that end a list of steps.
const CLOSING: [&str; 3] = ["then", "else", "fi"];
/// Words of the language that are not read here.
const OTHERS: [&str; 11] =
    ["case", "do", "done", "elif", "esac", "for", "function", "until", "while", "{", "}"];
/// How deep scripts lie in each other.
const DEEPEST: usize = 32;

/// The script, if all of it is understood.
pub(super) fn read(text: &str) -> Option<Script> {
    let mut reader = Reader { rest: text, depth: 0 };
    let script = reader.script()?;
    reader.rest.is_empty().then_some(script)
}

/// Whether all commands of a script are known.
pub(super) fn only(script: &Script, known: &[&str]) -> bool {
    let of_word = |word: &Word| {
        word.iter().all(|part| match &part.what {
            What::Text(_) | What::Variable { .. } => true,
            What::Output(script) => only(script, known),
            What::Number(word) => word.iter().all(|part| match &part.what {
                What::Output(script) => only(script, known),
                _ => true,
            }),
        })
    };
    script.iter().flat_map(|step| &step.pipe).all(|command| match &command.does {
        Does::Group(script) => only(script, known),
        Does::If { condition, then, otherwise } => {
            [condition, then, otherwise].into_iter().all(|script| only(script, known))
        }
        Does::Simple { sets, words } => {
            let name = words.first().is_none_or(|word| match word.as_slice() {
                [Part { what: What::Text(name), .. }] if name == "sh" => {
                    let [_, option, script, ..] = words.as_slice() else { return false };
                    literal(option).as_deref() == Some("-c")
                        && literal(script).as_deref() == Some(files::SCRIPT)
                }
                [Part { what: What::Text(name), .. }] => known.contains(&name.as_str()),
                _ => false,
            });
            name && sets.iter().map(|(_, word)| word).chain(words).all(of_word)
        }
    })
}

/// Whether the last that a script does is to sleep for ever.
pub(super) fn sleeps_then(script: &Script) -> bool {
    let Some([Command { does: Does::Simple { words, .. }, .. }]) =
        script.last().map(|step| step.pipe.as_slice())
    else {
        return false;
    };
    let words: Vec<Option<String>> = words.iter().map(literal).collect();
    matches!(words.as_slice(), [Some(sleep), Some(time)] if sleep == "sleep" && time == "infinity")
}

/// What a word is, if that is written there.
fn literal(word: &Word) -> Option<String> {
    let parts = word.iter().map(|part| match &part.what {
        What::Text(text) => Some(text.as_str()),
        _ => None,
    });
    parts.collect()
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn script(&mut self) -> Option<Script> {
        self.depth += 1;
        let (mut steps, mut when) = (Vec::new(), When::Always);
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', ';']);
            if self.comment() {
                continue;
            }
            if self.rest.is_empty() || self.rest.starts_with(')') || CLOSING.contains(&self.keyword()) {
                self.depth -= 1;
                return (when == When::Always).then_some(steps);
            }
            if self.depth > DEEPEST {
                return None;
            }
            steps.push(self.step(when)?);
            when = if self.takes("&&") {
                When::Success
            } else if self.takes("||") {
                When::Failure
            } else if self.rest.is_empty() || self.rest.starts_with([';', '\n', ')']) {
                When::Always
            } else {
                return None;
            };
        }
    }

    fn step(&mut self, when: When) -> Option<Step> {
        let not = self.keyword() == "!" && self.takes("!");
        let mut pipe = Vec::new();
        loop {
            self.blanks();
            pipe.push(self.command()?);
            self.blanks();
            if self.rest.starts_with("||") || !self.takes("|") {
                return Some(Step { when, not, pipe });
            }
        }
    }

    fn command(&mut self) -> Option<Command> {
        let keyword = self.keyword().to_owned();
        let does = match keyword.as_str() {
            _ if self.takes("(") => {
                let script = self.script()?;
                self.takes(")").then_some(Does::Group(script))?
            }
            "if" => {
                self.rest = &self.rest[2..];
                let condition = self.script()?;
                let then = if self.takes("then") { self.script()? } else { return None };
                let otherwise = if self.takes("else") { self.script()? } else { Vec::new() };
                self.takes("fi").then_some(Does::If { condition, then, otherwise })?
            }
            other if OTHERS.contains(&other) => return None,
            _ => return self.simple(),
        };
        let mut redirects = Vec::new();
        self.blanks();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
            self.blanks();
        }
        Some(Command { does, redirects })
    }

    fn simple(&mut self) -> Option<Command> {
        let (mut sets, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.blanks();
            self.comment();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
            } else if self.rest.is_empty() || self.rest.starts_with(ENDS) {
                break;
            } else if words.is_empty()
                && let Some(name) = self.assigned()
            {
                let value = if self.rest.is_empty() || self.rest.starts_with(ENDS) || self.at_blank() {
                    Word::new()
                } else {
                    self.word()?
                };
                sets.push((name, value));
            } else {
                words.push(self.word()?);
            }
        }
        let nothing = sets.is_empty() && words.is_empty() && redirects.is_empty();
        (!nothing).then_some(Command { does: Does::Simple { sets, words }, redirects })
    }

    /// The name before `=`, which is taken.
    fn assigned(&mut self) -> Option<String> {
        let (name, rest) = self.rest.split_once('=')?;
        let is_name =
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(in_name);
        is_name.then(|| {
            self.rest = rest;
            name.to_owned()
        })
    }

    /// The redirection that is next, if one is.
    fn redirect(&mut self) -> Option<Option<Redirect>> {
        let fd = match self.rest.as_bytes() {
            [b'<', b'<', ..] => return None,
            [b'<', ..] => 0,
            [b'>', ..] => 1,
            [digit @ b'1'..=b'2', b'>', ..] => {
                self.rest = &self.rest[1..];
                usize::from(digit - b'0')
            }
            _ => return Some(None),
        };
        self.rest = &self.rest[1..];
        if fd == 0 {
            self.blanks();
            return Some(Some(Redirect::From(self.word()?)));
        }
        if self.takes("&") {
            let other = if self.takes("1") { 1 } else { self.takes("2").then_some(2)? };
            return Some(Some(Redirect::Like { fd, other }));
        }
        let append = self.takes(">");
        self.blanks();
        Some(Some(Redirect::To { fd, path: self.word()?, append }))
    }

    fn word(&mut self) -> Option<Word> {
        let mut word = Word::new();
        while let Some(letter) = self.rest.chars().next().filter(|c| !ENDS.contains(c)) {
            match letter {
                ' ' | '\t' => break,
                '\'' => {
                    let (text, rest) = self.rest[1..].split_once('\'')?;
                    self.rest = rest;
                    word.push(Part { what: What::Text(text.to_owned()), quoted: true });
                }
                '"' => {
                    self.rest = &self.rest[1..];
                    self.until('"', &mut word)?;
                }
                '$' => word.push(self.dollar(false)?),
                '\\' => {
                    let escaped = self.rest[1..].chars().next()?;
                    self.rest = &self.rest[1 + escaped.len_utf8()..];
                    push(&mut word, escaped, true);
                }
                '`' => return None,
                _ => {
                    self.rest = &self.rest[letter.len_utf8()..];
                    push(&mut word, letter, false);
                }
            }
        }
        (!word.is_empty()).then_some(word)
    }

    /// What is quoted, to its end.
    fn until(&mut self, end: char, word: &mut Word) -> Option<()> {
        word.push(Part { what: What::Text(String::new()), quoted: true });
        loop {
            let letter = self.rest.chars().next()?;
            if letter == '$' {
                word.push(self.dollar(true)?);
                continue;
            }
            self.rest = &self.rest[letter.len_utf8()..];
            match letter {
                _ if letter == end => return Some(()),
                '`' => return None,
                '\\' if self.rest.starts_with(['$', '`', '"', '\\']) => {
                    let escaped = self.rest.chars().next()?;
                    self.rest = &self.rest[1..];
                    push(word, escaped, true);
                }
                _ => push(word, letter, true),
            }
        }
    }

    /// What begins with `$`.
    fn dollar(&mut self, quoted: bool) -> Option<Part> {
        self.rest = &self.rest[1..];
        let what = if self.takes("((") {
            let mut word = Word::new();
            self.depth += 1;
            while !self.takes("))") {
                if self.depth > DEEPEST {
                    return None;
                }
                match self.rest.chars().next()? {
                    '$' => word.push(self.dollar(true)?),
                    letter => {
                        self.rest = &self.rest[letter.len_utf8()..];
                        push(&mut word, letter, true);
                    }
                }
            }
            self.depth -= 1;
            What::Number(word)
        } else if self.takes("(") {
            let script = self.script()?;
            self.takes(")").then_some(What::Output(script))?
        } else if self.takes("{") {
            let name = self.name();
            let cut = if self.takes("%%") {
                let (cut, _) = self.rest.split_once('}')?;
                self.rest = &self.rest[cut.len()..];
                Some(cut.to_owned())
            } else {
                None
            };
            (self.takes("}") && !name.is_empty()).then_some(What::Variable { name, cut })?
        } else if self.takes("?") {
            What::Variable { name: "?".into(), cut: None }
        } else {
            match self.name() {
                name if name.is_empty() => What::Text("$".into()),
                name => What::Variable { name, cut: None },
            }
        };
        Some(Part { what, quoted })
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c| !in_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    /// The next word as it is written.
    fn keyword(&self) -> &str {
        let end = self.rest.find(|c: char| c == ' ' || c == '\t' || ENDS.contains(&c));
        &self.rest[..end.unwrap_or(self.rest.len())]
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Leaves a comment out, which goes on to the end of the line.
    fn comment(&mut self) -> bool {
        let is = self.rest.starts_with('#');
        if is {
            self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
        }
        is
    }

    fn at_blank(&self) -> bool {
        self.rest.starts_with([' ', '\t'])
    }

    fn blanks(&mut self) {
        loop {
            let rest = self.rest.trim_start_matches([' ', '\t']);
            let rest = rest.strip_prefix("\\\n").unwrap_or(rest);
            if rest.len() == self.rest.len() {
                return;
            }
            self.rest = rest;
        }
    }
}

fn in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Adds a letter to a word.
fn push(word: &mut Word, letter: char, quoted: bool) {
    match word.last_mut() {
        Some(Part { what: What::Text(text), quoted: same }) if *same == quoted => text.push(letter),
        _ => word.push(Part { what: What::Text(letter.to_string()), quoted }),
    }
}
