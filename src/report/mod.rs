//! The readers of events and verdicts, and the only code that writes to the terminal.
