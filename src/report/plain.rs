//! One line an event, for pipes, logs and CI.

use std::collections::HashMap;
use std::io::Write;

use super::Reader;
use super::verdicts::{describe, mark};
use crate::event::{Event, EventKind};

pub(super) struct Plain<W> {
    out: W,
    style: Style,
    last: String,
    titles: Titles,
}

/// How lines look, and which there are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    pub colour: bool,
    /// Notes too.
    pub verbose: bool,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W, style: Style) -> Self {
        Self { out, style, last: String::new(), titles: Titles::default() }
    }

    fn print(&mut self, text: String) {
        // A wait repeats itself; saying it once is enough.
        if text != self.last {
            let _ = writeln!(self.out, "{text}");
            self.last = text;
        }
    }
}

impl<W: Write + Send> Reader for Plain<W> {
    fn read(&mut self, event: &Event) {
        let title = self.titles.of(event);
        let Some(text) = line(event, title.as_deref(), self.style) else { return };
        if let EventKind::Waiting { .. } = event.what
            && let Some(title) = title.filter(|_| self.titles.unsaid(event))
        {
            self.print(format!("  … {title}"));
        }
        self.print(text);
    }
}

/// The target and the step of an event.
pub(super) type Key = (Option<String>, Option<String>);

pub(super) fn key(event: &Event) -> Key {
    (event.target.clone(), event.step.clone())
}

/// Whether the step is over.
pub(super) fn ends(what: &EventKind) -> bool {
    use EventKind::{Checked, StepDone, StepFailed, StepSkipped};
    matches!(what, StepDone { .. } | StepFailed { .. } | StepSkipped { .. } | Checked { .. })
}

/// The titles of the steps that run, each with its node before it.
#[derive(Default)]
pub(super) struct Titles {
    /// With whether it was said that the step runs.
    running: HashMap<Key, (String, bool)>,
}

impl Titles {
    /// The title of the event's step, from its start to its end.
    pub(super) fn of(&mut self, event: &Event) -> Option<String> {
        let key = key(event);
        match &event.what {
            EventKind::StepStarted { title } => {
                let title = format!("{}{title}", place(event));
                self.running.insert(key, (title.clone(), false));
                Some(title)
            }
            what if ends(what) => self.running.remove(&key).map(|(title, _)| title),
            _ => self.running.get(&key).map(|(title, _)| title.clone()),
        }
    }

    /// True once in a step.
    fn unsaid(&mut self, event: &Event) -> bool {
        self.running.get_mut(&key(event)).is_some_and(|(_, said)| !std::mem::replace(said, true))
    }
}

pub(super) fn place(event: &Event) -> String {
    event.target.iter().filter(|target| *target != "cluster").map(|target| format!("{target}: ")).collect()
}

/// The event as one line, or nothing when it says nothing new to people; `title` is its step's.
pub(super) fn line(event: &Event, title: Option<&str>, style: Style) -> Option<String> {
    let Style { colour, verbose } = style;
    let place = place(event);
    let title = title.unwrap_or(&place);
    Some(match &event.what {
        EventKind::RunStarted { simulated: true, .. } => "(simulated)".to_owned(),
        // Most steps are done at once; one that is not says its title when it waits.
        EventKind::RunStarted { .. } | EventKind::StepStarted { .. } => return None,
        EventKind::Waiting { what, last } if last.is_empty() => format!("    {place}waiting for {what}"),
        EventKind::Waiting { what, last } => format!("    {place}waiting for {what}: {last}"),
        EventKind::Message { message } => format!("{place}{message}"),
        EventKind::Planned { text, .. } => text.trim_end_matches('\n').to_owned(),
        EventKind::Note { message } if verbose => format!("    {place}{message}"),
        EventKind::Note { .. } => return None,
        EventKind::Warning { message } => format!("  ! {place}{message}"),
        EventKind::StepDone { .. } => format!("  {} {title}", mark("pass", colour)),
        EventKind::StepSkipped { why } => format!("  - {title}: skipped, {why}"),
        EventKind::StepFailed { error, hint } => {
            let hint = hint.iter().map(|hint| format!("\n    hint: {hint}")).collect::<String>();
            format!("  {} {title}: {error}{hint}", mark("fail", colour))
        }
        EventKind::Checked { check } => format!("  {}", describe(check, colour)),
        EventKind::RunFinished { summary, .. } => summary.clone(),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::Events;

    fn lines(say: impl Fn(&Events)) -> String {
        let plain = Arc::new(Mutex::new(Plain::new(Vec::new(), Style::default())));
        let reader = plain.clone();
        say(&Events::new(String::new, move |event| reader.lock().unwrap().read(&event)));
        String::from_utf8(plain.lock().unwrap().out.clone()).unwrap()
    }

    #[test]
    fn a_step_is_one_line_and_more_only_while_it_waits() {
        let waiting = |last: &str| EventKind::Waiting { what: "the volume".into(), last: last.into() };
        let said = lines(|events| {
            let quick = events.of("cluster", "one");
            let slow = events.of("10.5.0.2", "two");
            quick.send(EventKind::StepStarted { title: "create Namespace velero".into() });
            slow.send(EventKind::StepStarted { title: "volume openebs".into() });
            slow.send(waiting("phase waiting"));
            slow.send(waiting("phase waiting"));
            quick.send(EventKind::StepDone { changed: true });
            slow.send(waiting("phase failed"));
            slow.send(EventKind::StepFailed { error: "gave up".into(), hint: Some("look".into()) });
        });
        assert_eq!(
            said,
            "  … 10.5.0.2: volume openebs
    10.5.0.2: waiting for the volume: phase waiting
  ✔ create Namespace velero
    10.5.0.2: waiting for the volume: phase failed
  ✘ 10.5.0.2: volume openebs: gave up
    hint: look
"
        );
    }
}
