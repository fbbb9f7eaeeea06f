//! One run at a time: a file lock on this machine, which the kernel drops when the process ends.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{Error, Kind, Result};
use crate::state::{State, now};

/// Held while a run changes something.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the cluster's lock or says who holds it ([`Kind::Unavailable`], exit 75).
    pub fn take(state: &State, verb: &str) -> Result<Self> {
        let path = state.dir().join("lock");
        let fail = |e: std::io::Error| Error::failed(format!("can't take the lock {}: {e}", path.display()));
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("another run holds the lock: {}", holder.trim()),
                )
                .hint(format!("wait until it ends, then run this again (lock: {})", path.display())));
            }
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(fail)?;
        writeln!(file, "`nodeprep {verb}`, pid {}, since {}", std::process::id(), now()).map_err(fail)?;
        Ok(Self { _file: file })
    }

    /// Whether a run holds it now.
    pub fn is_held(state: &State) -> bool {
        let file = File::options().read(true).open(state.dir().join("lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_second_run_is_refused_and_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        let first = Lock::take(&state, "apply").unwrap();
        let error = Lock::take(&state, "install").unwrap_err();
        assert_eq!(error.kind.exit_code(), 75);
        assert!(error.what.contains("nodeprep apply") && error.what.contains("pid"), "{error}");
        assert!(Lock::is_held(&state));
        drop(first);
        assert!(!Lock::is_held(&state));
        Lock::take(&state, "install").unwrap();
    }
}
