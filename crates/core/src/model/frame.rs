//! A pod's result, framed: the log ends with the length and the SHA-256 of what came before, so that a
//! log that was cut or mixed up is noticed.

use sha2::{Digest, Sha256};

const MARK: &str = "nodeprep-result ";

/// What the pod's work printed (standard output and error together), and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub text: String,
    pub status: i32,
}

/// A shell script that does `work` (stopping at the first error) and prints its framed result.
/// It needs a writable `/tmp`.
pub fn script(work: &str) -> String {
    format!(
        "(\nset -e\n{work}\n) >/tmp/result 2>&1\nstatus=$?\ncat /tmp/result\n\
         printf '{MARK}%s %s %s\\n' \"$(($(wc -c </tmp/result)))\" \
         \"$(sha256sum </tmp/result | cut -d' ' -f1)\" \"$status\"\n"
    )
}

/// Reads a framed log; the error says what is wrong with the frame.
pub fn read(log: &str) -> Result<Output, String> {
    let at = log.rfind(MARK).ok_or("the log ends before the result")?;
    let (before, line) = (&log[..at], &log[at + MARK.len()..]);
    let mut words = line.strip_suffix('\n').ok_or("the log ends within its last line")?.split(' ');
    let mut next = || words.next().ok_or("the last line of the log is incomplete");
    let (length, digest, status) = (next()?, next()?, next()?);
    let length: usize = length.parse().map_err(|_| "the last line of the log is damaged")?;
    let status: i32 = status.parse().map_err(|_| "the last line of the log is damaged")?;
    let start = before.len().checked_sub(length).filter(|i| before.is_char_boundary(*i));
    let text = &before[start.ok_or_else(|| format!("the log has {} of {length} bytes", before.len()))?..];
    if hex(&Sha256::digest(text)) != digest {
        return Err("the log does not match its checksum".to_owned());
    }
    Ok(Output { text: text.to_owned(), status })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sh(work: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let script = script(work).replace("/tmp/result", &format!("{}/result", folder.path().display()));
        String::from_utf8(Command::new("sh").args(["-c", &script]).output().unwrap().stdout).unwrap()
    }

    #[test]
    fn what_the_shell_framed_is_read_back() {
        for (work, text, status) in [
            ("echo hello", "hello\n", 0),
            ("printf 'no newline'", "no newline", 0),
            ("true", "", 0),
            ("echo one; echo two >&2; false; echo never", "one\ntwo\n", 1),
            ("echo 'nodeprep-result 1 2 3'", "nodeprep-result 1 2 3\n", 0),
            ("printf 'Grüße'; exit 7", "Grüße", 7),
        ] {
            let log = sh(work);
            assert_eq!(read(&log), Ok(Output { text: text.to_owned(), status }), "{work}: {log}");
        }
    }

    #[test]
    fn a_cut_or_changed_log_is_refused() {
        let log = sh("echo hello; echo world");
        for end in 0..log.len() {
            assert!(read(&log[..end]).is_err(), "cut at {end}");
        }
        for start in 1..log.len() {
            assert!(read(&log[start..]).is_err(), "cut before {start}");
        }
        assert!(read(&log.replace("world", "w0rld")).is_err());
        assert!(read(&log.replacen("hello\n", "", 1)).is_err());
        assert!(read("nodeprep-result 9 x 0\nü\n").is_err());
    }
}
