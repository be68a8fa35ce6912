//! What every command has at hand: its general options, its output, its broker.

use tidings::Broker;

use crate::args::Globals;
use crate::failure::Failure;
use crate::output::Output;

/// General options and output of one command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) out: Output,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> Self {
        let out = Output::new(globals.json, globals.quiet);
        Self { globals, out }
    }

    /// The broker's URL: `--broker`, else the environment's, else the embedded default.
    pub(crate) fn broker_url(&self) -> Result<String, Failure> {
        Ok(match &self.globals.broker {
            Some(url) => url.clone(),
            None => Broker::url_from_env()?,
        })
    }

    /// The broker, made where it is a file that is not there.
    pub(crate) async fn broker(&self) -> Result<Broker, Failure> {
        Ok(Broker::connect(&self.broker_url()?).await?)
    }

    /// The broker, for commands that only look or move what is there.
    pub(crate) async fn existing_broker(&self) -> Result<Broker, Failure> {
        Ok(Broker::connect_existing(&self.broker_url()?).await?)
    }
}
