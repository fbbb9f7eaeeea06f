//! Rules beyond types, each error at its line.

use super::Intent;
use crate::error::Result;

pub(super) fn validate(_name: &str, _text: &str, _intent: &Intent) -> Result<()> {
    Ok(())
}
