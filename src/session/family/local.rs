//! What is done on the machine that nodeprep runs on.

use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::RunContext;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::plan::Local;
use crate::state::write_new_private;
use crate::talos::Client;
use crate::wait::{Look, Wait};

pub(super) async fn carry_out(action: &Local, context: &RunContext, events: &Events) -> Result<bool> {
    let Local::Kubeconfig { address, path } = action;
    let within = context.manner.deadlines.bootstrap.std();
    kubeconfig(context.talos()?, address, path, within, events).await
}

/// Fetches the kubeconfig into a file that does not exist yet; true when it was written.
async fn kubeconfig(
    client: &Client,
    address: &str,
    path: &Path,
    within: Duration,
    events: &Events,
) -> Result<bool> {
    let node = client.node(address)?;
    let wait = Wait::new(format!("the kubeconfig of {address}"), within, events);
    let text = wait.until(async || node.kubeconfig().await.map(Look::Done)).await;
    let text = text.map_err(|late| late.or(|_, last| Error::failed(last)))?;
    write_new_private(path, text.expose_secret().as_bytes())
}
