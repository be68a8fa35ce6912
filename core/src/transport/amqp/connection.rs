//! Connections: one to publish, one to consume, each opened when it is first needed and again when it is lost.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::url::{Config, Tls};
use super::{error, network};
use crate::{Error, ErrorKind, Result, tls};

/// Time that the server gets to answer a request on an open connection.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Channels that are tried before an error is taken for that of the new channel.
const OPENING_ATTEMPTS: u32 = 3;

/// A connection that stands, until it does not.
pub(super) struct Live {
    connection: Connection,
    /// The server's reason while it holds back publishes (`connection.blocked`).
    blocked: Arc<Mutex<Option<String>>>,
    watcher: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Live {
    pub(super) fn connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Largest frame that was agreed on, in bytes.
    pub(super) fn frame_max(&self) -> usize {
        match self.connection.configuration().frame_max() {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked.lock().clone()
    }

    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel> {
        let opening = async {
            for _ in 0..OPENING_ATTEMPTS {
                match self.connection.create_channel().await {
                    // Nothing that is said of opening a channel: lapin still tells what ended the last one of this number.
                    Err(stale) if error::ended_a_channel(&stale) => {
                        tracing::debug!(%stale, "the error of an earlier channel");
                    }
                    opened => return opened,
                }
            }
            self.connection.create_channel().await
        };
        answer_in_time(opening, "a channel").await
    }

    pub(super) async fn close(&self) {
        if self.connected()
            && let Err(error) =
                answer_in_time(self.connection.close(200, "closed".into()), "closing the connection").await
        {
            tracing::debug!(%error, "the connection did not close in order");
        }
    }
}

/// Awaits the server's answer to `what` for at most [`ANSWER_TIMEOUT`].
pub(super) async fn answer_in_time<T>(answer: impl Future<Output = lapin::Result<T>>, what: &str) -> Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(result) => result.map_err(|e| error::answered(e, what)),
        Err(_) => Err(Error::new(
            ErrorKind::ConnectionFailed,
            format!("the broker did not answer {what} within {ANSWER_TIMEOUT:?}"),
        )),
    }
}

/// Keeps one connection.
pub(super) struct Connector {
    config: Arc<Config>,
    role: &'static str,
    slot: tokio::sync::Mutex<Option<Arc<Live>>>,
    /// A connection that was opened to see whether the broker can be reached, for the first role that wants it.
    spare: Arc<Mutex<Option<Arc<Live>>>>,
    closed: AtomicBool,
    /// The first connection is the last.
    once: bool,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("role", &self.role).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(config: Arc<Config>, role: &'static str, spare: Arc<Mutex<Option<Arc<Live>>>>) -> Self {
        Self { config, role, slot: tokio::sync::Mutex::new(None), spare, closed: AtomicBool::new(false), once: false }
    }

    /// Keeps this connection and never opens another one.
    pub(super) fn once(config: Arc<Config>, role: &'static str, live: Arc<Live>) -> Self {
        let slot = tokio::sync::Mutex::new(Some(live));
        Self { slot, once: true, ..Self::new(config, role, Arc::default()) }
    }

    /// The connection, opened with one attempt if there is none.
    pub(super) async fn live(&self) -> Result<Arc<Live>> {
        let mut slot = self.slot.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(error::closed());
        }
        if let Some(live) = slot.as_ref().filter(|live| live.connected()) {
            return Ok(live.clone());
        }
        if self.once {
            return Err(error::closed());
        }
        let spare = self.spare.lock().take().filter(|live| live.connected());
        let live = match spare {
            Some(live) => live,
            None => Arc::new(open(&self.config).await?),
        };
        tracing::debug!(broker = %self.config.target(), role = self.role, "connected");
        *slot = Some(live.clone());
        Ok(live)
    }

    /// A new channel on the connection.
    pub(super) async fn channel(&self) -> Result<(Channel, Arc<Live>)> {
        let live = self.live().await?;
        let channel = live.channel().await?;
        Ok((channel, live))
    }

    /// Closes the connection; every later call fails with `CLOSED`.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let live = self.slot.lock().await.take();
        if let Some(live) = live {
            live.close().await;
        }
    }
}

/// Connects once: TCP, TLS, login, virtual host.
pub(super) async fn open(config: &Arc<Config>) -> Result<Live> {
    let target = config.target();
    let tls = match &config.tls {
        Some(files) => {
            let files = files.clone();
            let reading = tokio::task::spawn_blocking(move || connector(&files)).await;
            let failed = |e| Error::new(ErrorKind::Internal, "reading the TLS files was cut short").source(e);
            Some(reading.map_err(failed)??)
        }
        None => None,
    };
    let properties = ConnectionProperties::default()
        .with_connection_name("tidings".into())
        .with_client_property("product".into(), "Tidings".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let time = config.connection_timeout;
    let address = (config.host.clone(), config.port);
    let connect = async move |_, _| {
        mute();
        Ok(network::connect(&address, tls.as_ref(), time).await?)
    };
    let opening = Connection::connector(config.to_uri(), network::runtime(), connect, properties);
    // TCP and TLS have their own limits within; this one is for the login.
    let connection = tokio::time::timeout(time.saturating_mul(3), opening).await.map_err(|_| {
        Error::new(
            ErrorKind::ConnectionFailed,
            format!("{target} did not finish the login within {:?}", time.saturating_mul(3)),
        )
        .field("connection_timeout", time.as_millis())
        .remedy("check whether the broker is overloaded, or raise connection_timeout")
    })?;
    let connection = connection.map_err(|e| error::connecting(e, config))?;
    let blocked = Arc::new(Mutex::new(None));
    let watcher = tokio::spawn(watch(connection.events_listener(), blocked.clone(), target)).abort_handle();
    Ok(Live { connection, blocked, watcher })
}

/// Keeps lapin's I/O thread, which this is called on, from logging: it writes every returned message with its body.
/// What it says of errors is in the errors.
fn mute() {
    // The guard would restore the thread's dispatcher at the end of this function.
    std::mem::forget(tracing::dispatcher::set_default(&tracing::Dispatch::none()));
}

/// Notes when and why the server blocks the connection.
async fn watch(
    events: impl futures_util::Stream<Item = Event> + Send,
    blocked: Arc<Mutex<Option<String>>>,
    target: String,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(broker = %target, %reason, "the broker holds back what is published");
                *blocked.lock() = Some(reason);
            }
            Event::ConnectionUnblocked => {
                tracing::info!(broker = %target, "the broker takes what is published again");
                *blocked.lock() = None;
            }
            _ => {}
        }
    }
}

/// The files as the handshake takes them; blocks while it reads them.
fn connector(files: &Tls) -> Result<TlsConnector> {
    fn named<'a>(field: &'static str, path: Option<&'a PathBuf>) -> Option<tls::Named<'a>> {
        path.map(|path| tls::Named { field, path })
    }
    let identity = named("certfile", files.certfile.as_ref()).zip(named("keyfile", files.keyfile.as_ref()));
    let config = tls::client(named("cacertfile", files.cacertfile.as_ref()), identity)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Time to wait before the `attempt`-th try to reconnect (0, 1, 2 …): doubling from 50 ms to 5 s, with up to half of it
/// added so that the clients of a restarted broker do not all come at once.
pub(super) fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(50).saturating_mul(1 << attempt.min(7)).min(Duration::from_secs(5));
    base + base.mul_f64(fastrand::f64() / 2.0)
}
