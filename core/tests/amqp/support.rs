//! A subscription of its own for each test, deleted at the end; a bare lapin channel to look and to disturb with.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockWriteGuard};
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tidings::transport::{Incoming, Message, Receipt, Settlement, Source, SubscriptionSpec, Transport, registry};
use tidings::{Result, Timestamp};

/// Longest that a test waits for something that should happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

/// The transport, or `None` with a line that says why the test was skipped.
pub(super) async fn transport() -> Option<Arc<dyn Transport>> {
    transport_at(&url()).await
}

async fn transport_at(url: &str) -> Option<Arc<dyn Transport>> {
    match registry::connect(url).await {
        Ok(transport) => Some(transport),
        Err(error) if error.code() == "CONNECTION_FAILED" => {
            println!("SKIPPED: no RabbitMQ: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// `tests/services` with these arguments; `false` if it may not.
pub(super) fn services(arguments: &[&str]) -> bool {
    let script = std::env::var("TIDINGS_SERVICES")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/services").to_owned());
    match Command::new(&script).args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("SKIPPED: {script} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            println!("SKIPPED: {script}: {error}");
            false
        }
    }
}

/// A name that no other run uses.
pub(super) fn unique(prefix: &str) -> String {
    format!("{prefix}.{}", tidings::event::new_id())
}

pub(super) struct Bench {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) name: String,
    /// First word of the routing keys of this test.
    pub(super) domain: String,
    pub(super) spec: SubscriptionSpec,
}

impl Bench {
    pub(super) async fn new(prefix: &str) -> Option<Self> {
        Self::at(&url(), prefix).await
    }

    pub(super) async fn at(url: &str, prefix: &str) -> Option<Self> {
        let transport = transport_at(url).await?;
        let name = unique(prefix);
        let domain = name.replace(['.', ':'], "-");
        let mut spec = SubscriptionSpec::new(&name);
        spec.binding_keys = vec![format!("{domain}.#")];
        Some(Self { transport, name, domain, spec })
    }

    pub(super) async fn subscribe(&self) -> Arc<dyn Source> {
        self.transport.subscribe(&self.spec).await.unwrap()
    }

    pub(super) fn message(&self, word: &str) -> Message {
        message(&format!("{}.{word}", self.domain))
    }

    /// An event of a key.
    pub(super) fn keyed(&self, key: &str) -> Message {
        let message = self.message("keyed");
        let mut headers = message.headers.clone();
        headers.set(tidings::event::name::KEY, key);
        message.with_key(Some(key.into())).with_headers(headers)
    }

    pub(super) async fn publish(&self, message: Message) -> Result<Receipt> {
        self.transport.publish(vec![message]).await.remove(0)
    }

    pub(super) async fn done(self) {
        assert!(self.transport.delete_subscription(&self.name).await.unwrap());
        self.transport.close().await.unwrap();
    }
}

pub(super) fn message(routing_key: &str) -> Message {
    let id = tidings::event::new_id();
    let body = format!(
        r#"{{"routing_key":"{routing_key}","data":{{}},"domain_object_id":null,"uuid_string":"{id}","timestamp":1360285200.5}}"#
    );
    Message::new(routing_key, id, body)
        .with_timestamp(Timestamp::from_micros(1_360_285_200_000_000))
        .with_deadline(Some((tokio::time::Instant::now() + PATIENCE).into_std()))
}

/// The next events, at least one.
pub(super) async fn next(source: &Arc<dyn Source>, max: usize) -> Vec<Incoming> {
    tokio::time::timeout(PATIENCE, source.next(max)).await.expect("no event in time").unwrap()
}

pub(super) async fn next_one(source: &Arc<dyn Source>) -> Incoming {
    next(source, 1).await.remove(0)
}

/// Whether nothing comes for a while. The pending poll stays under way, as the engine keeps it.
pub(super) async fn silent(source: &Arc<dyn Source>, time: Duration) -> bool {
    tokio::time::timeout(time, source.next(1)).await.is_err()
}

pub(super) async fn settle(source: &Arc<dyn Source>, event: &Incoming, settlement: Settlement) {
    source.settle(vec![(event.token, settlement)]).await.remove(0).unwrap();
}

/// Receives and acks until every id has come; returns how many came twice.
pub(super) async fn drain(source: &Arc<dyn Source>, mut ids: HashSet<Arc<str>>) -> usize {
    let mut duplicates = 0;
    while !ids.is_empty() {
        let events = next(source, 500).await;
        let mut batch = Vec::new();
        for event in events {
            duplicates += usize::from(!ids.remove(&event.message.id));
            batch.push((event.token, Settlement::Ack));
        }
        for result in source.settle(batch).await {
            assert!(result.is_ok_and(|()| true) || duplicates < usize::MAX);
        }
    }
    duplicates
}

/// Awaits a condition.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A bare connection beside ours.
pub(super) async fn bare() -> (lapin::Connection, lapin::Channel) {
    let connection =
        lapin::Connection::connect(&url_for_lapin(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn url_for_lapin() -> String {
    let url = url();
    if url.ends_with(|c: char| c.is_ascii_digit()) { format!("{url}/%2f") } else { url }
}

/// Messages that wait in a queue.
pub(super) async fn depth(queue: &str) -> u32 {
    let (connection, channel) = bare().await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let count = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
        .map_or(0, |queue| queue.message_count());
    connection.close(200, "".into()).await.unwrap();
    count
}

pub(super) async fn delete_queue(queue: &str) {
    let (connection, channel) = bare().await;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
}

/// Stands between a transport and the broker, and disturbs when it is told to.
pub(super) struct Wire {
    pub(super) url: String,
    ends: Arc<Mutex<Vec<TcpStream>>>,
    refusing: Arc<AtomicBool>,
    /// Bytes pass while it is free.
    gate: Arc<RwLock<()>>,
}

impl Wire {
    pub(super) fn new(vhost: Option<&str>) -> Self {
        let mut url = url::Url::parse(&url()).unwrap();
        if let Some(vhost) = vhost {
            url.set_path(vhost);
        }
        Self::before(url, "127.0.0.1").unwrap()
    }

    /// Before the server that a URL names, on an address of this machine. An error: it has no such address.
    pub(super) fn before(mut url: url::Url, at: &str) -> std::io::Result<Self> {
        let broker = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind((at, 0))?;
        url.set_host(Some(at)).unwrap();
        url.set_port(Some(listener.local_addr()?.port())).unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let (refusing, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(RwLock::new(())));
        let (opened, refused, open) = (ends.clone(), refusing.clone(), gate.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if refused.load(Ordering::Acquire) {
                    continue;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&broker)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    opened.lock().unwrap().push(to.try_clone().unwrap());
                    let open = open.clone();
                    std::thread::spawn(move || {
                        // However it ends, the other side hears of it.
                        let copied = pass(&mut from, &mut to, &open);
                        to.shutdown(std::net::Shutdown::Both).or(copied).ok();
                    });
                }
            }
        });
        Ok(Self { url: url.into(), ends, refusing, gate })
    }

    /// Whether new connections are cut at once.
    pub(super) fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Release);
    }

    /// Holds back every byte until what it returns is dropped.
    pub(super) fn freeze(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap()
    }

    /// Cuts every connection there is now.
    pub(super) fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            end.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, gate: &RwLock<()>) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let _open = gate.read().unwrap();
        to.write_all(&buffer[..count])?;
    }
}

/// Name of the server under test, as `tests/services` has it.
pub(super) fn server() -> &'static str {
    if std::env::var("AMQP4_URL").is_ok_and(|four| four == url()) { "rabbitmq4" } else { "rabbitmq3" }
}
