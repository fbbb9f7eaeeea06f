//! The events of a run, written down: those before it begins are remembered until there is a folder for them.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err::os::unix::fs::OpenOptionsExt;
use fs_err::{File, OpenOptions};

use crate::config_doc;
use crate::error::{Error, Result};
use crate::event::{Event, Events};

/// So many events are remembered before a run begins; later ones of a verb that begins none are of no use.
const REMEMBERED: usize = 1_000;

/// What was told so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tape(Arc<Mutex<Told>>);

#[derive(Debug)]
enum Told {
    Before(Vec<String>),
    To(File),
}

impl Default for Told {
    fn default() -> Self {
        Self::Before(Vec::new())
    }
}

impl Tape {
    /// The events, which are written down from now on as well.
    pub(super) fn of(&self, events: &Events) -> Events {
        let tape = self.clone();
        events.also(move |event| tape.tell(event))
    }

    fn tell(&self, mut event: Event) {
        event.what.texts(&mut |text| *text = config_doc::hide(text));
        let Ok(line) = serde_json::to_string(&event) else { return };
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Told::Before(lines) if lines.len() < REMEMBERED => lines.push(line),
            Told::Before(_) => {}
            // The journal is what must be on disk; a line that is missing here stops nothing.
            Told::To(file) => drop(writeln!(file, "{line}")),
        }
    }

    /// Writes to a file of this name from now on, and what was told before.
    pub(super) fn keep(&self, path: &Path) -> Result<()> {
        let failed = |error: std::io::Error| Error::failed(format!("can't write the run's events: {error}"));
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
        if let Told::Before(lines) = &*told {
            lines.iter().try_for_each(|line| writeln!(file, "{line}")).map_err(failed)?;
        }
        *told = Told::To(file);
        Ok(())
    }
}
