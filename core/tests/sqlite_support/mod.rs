//! What the tests of the SQLite transport share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod child;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidings::event::{Headers, Timestamp};
use tidings::transport::{
    Incoming, KeyOrder, Message, Settlement, Source, SubscriptionSpec, Token, Transport, registry,
};

/// A folder with a store in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("tidings.db")
    }

    pub(crate) fn url(&self) -> String {
        url(&self.path())
    }

    pub(crate) async fn connect(&self) -> Arc<dyn Transport> {
        registry::connect(&self.url()).await.unwrap()
    }
}

pub(crate) fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

pub(crate) fn message(routing_key: &str, n: usize) -> Message {
    keyed(routing_key, n, None)
}

pub(crate) fn keyed(routing_key: &str, n: usize, key: Option<&str>) -> Message {
    Message::new(routing_key, format!("id-{n}"), format!("{{\"n\":{n}}}"))
        .with_key(key.map(Into::into))
        .with_timestamp(Timestamp::from_micros(1_700_000_000_000_000))
}

pub(crate) fn spec(name: &str, binding_key: &str) -> SubscriptionSpec {
    let mut spec = SubscriptionSpec::new(name);
    spec.binding_keys = vec![binding_key.to_owned()];
    spec
}

pub(crate) fn ordered(name: &str, ordering: KeyOrder) -> SubscriptionSpec {
    let mut spec = spec(name, "#");
    spec.ordered = Some(ordering);
    spec
}

pub(crate) async fn publish(transport: &Arc<dyn Transport>, batch: Vec<Message>) {
    for result in transport.publish(batch).await {
        result.unwrap();
    }
}

/// The next deliveries, which must come soon.
pub(crate) async fn next(source: &Arc<dyn Source>, max: usize) -> Vec<Incoming> {
    within(source.next(max)).await.unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing came in time")
}

/// `count` deliveries, however they are cut.
pub(crate) async fn collect(source: &Arc<dyn Source>, count: usize) -> Vec<Incoming> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(next(source, count - all.len()).await);
    }
    all
}

/// That nothing comes while `settling` is done.
pub(crate) async fn nothing(source: &Arc<dyn Source>) {
    let source = source.clone();
    let mut pending = tokio::spawn(async move { source.next(10).await });
    let came = tokio::time::timeout(Duration::from_millis(150), &mut pending).await;
    pending.abort();
    if let Ok(came) = came {
        let ids: Vec<_> = came.unwrap().unwrap().into_iter().map(|i| i.message.id).collect();
        panic!("nothing was expected, but there came {ids:?}");
    }
}

pub(crate) async fn settle(source: &Arc<dyn Source>, token: Token, settlement: Settlement) {
    for result in source.settle(vec![(token, settlement)]).await {
        result.unwrap();
    }
}

pub(crate) async fn ack(source: &Arc<dyn Source>, deliveries: &[Incoming]) {
    let batch = deliveries.iter().map(|i| (i.token, Settlement::Ack)).collect();
    for result in source.settle(batch).await {
        result.unwrap();
    }
}

pub(crate) fn ids(deliveries: &[Incoming]) -> Vec<&str> {
    deliveries.iter().map(|i| &*i.message.id).collect()
}

pub(crate) fn with(name: &str, value: &str) -> Headers {
    [(name, value)].into_iter().collect()
}

/// Waits for `condition`, which must come true soon.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
