//! Which subscriptions there are and what they are bound to, as this process remembers it.

use std::collections::HashMap;

use super::admin;
use super::error::{Fault, Step};
use super::tx::Tx;
use crate::routing::Trie;

/// A subscription as an event is routed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) subscription: i64,
    pub(super) ordered: bool,
}

/// All bindings, as of `version`.
#[derive(Default)]
pub(super) struct Bindings {
    version: i64,
    exchanges: HashMap<String, Trie<Target>>,
    names: HashMap<i64, String>,
}

impl Bindings {
    /// The subscriptions that want an event.
    pub(super) fn route(&self, exchange: &str, routing_key: &str) -> Vec<Target> {
        self.exchanges.get(exchange).map_or_else(Vec::new, |trie| trie.matches(routing_key))
    }

    /// Whether `version` is what it remembers.
    pub(super) fn is_at(&self, version: i64) -> bool {
        self.version == version
    }

    /// Trusts nothing that it remembers.
    pub(super) fn forget(&mut self) {
        self.version = 0;
    }

    /// Reads the bindings if their version is another one, and declares again what live sources of this process need
    /// and somebody has deleted.
    pub(super) fn reload(tx: &mut Tx<'_>) -> Step<()> {
        let version = version(tx)?;
        if version == tx.state.bindings.version {
            return Ok(());
        }
        Self::load(tx, version)?;
        let names = &tx.state.bindings.names;
        let deleted: Vec<(u64, _)> = tx
            .state
            .ledger
            .iter()
            .filter(|(_, source)| names.get(&source.subscription).is_none_or(|name| *name != source.spec.name))
            .map(|(id, source)| (id, source.spec.clone()))
            .collect();
        if deleted.is_empty() {
            return Ok(());
        }
        for (id, spec) in deleted {
            tx.state.ledger.lose(id);
            if tx.state.ledger.get(id).is_none_or(|source| source.stopped) {
                continue;
            }
            tracing::warn!(subscription = %spec.name, "the subscription was deleted while it was consumed; it is declared again");
            let declared = match admin::declare(tx, &spec) {
                // Somebody declared it with other settings meanwhile: the end of this source, and of no other.
                Err(Fault::Refused(error)) => Err(error),
                declared => Ok(declared?),
            };
            let Some(source) = tx.state.ledger.get_mut(id) else { continue };
            let mut health = source.health.lock();
            match declared {
                Ok(subscription) => {
                    source.subscription = subscription;
                    health.recoveries += 1;
                }
                Err(error) => {
                    health.consuming = false;
                    health.last_error = Some(error.to_string());
                    source.stopped = true;
                    source.failure = Some(error);
                }
            }
        }
        let version = self::version(tx)?;
        Self::load(tx, version)
    }

    fn load(tx: &mut Tx<'_>, version: i64) -> Step<()> {
        let mut bindings = Self { version, ..Self::default() };
        let mut purging = Vec::new();
        let mut targets = HashMap::new();
        let mut statement = tx.conn.prepare_cached("SELECT id, name, exchange, ordered FROM tidings_subscription")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let subscription: i64 = row.get(0)?;
            let Some(name) = row.get::<_, Option<String>>(1)? else {
                purging.push(subscription);
                continue;
            };
            bindings.names.insert(subscription, name);
            targets.insert(subscription, (row.get::<_, String>(2)?, Target { subscription, ordered: row.get(3)? }));
        }
        let mut statement = tx.conn.prepare_cached("SELECT subscription, binding_key FROM tidings_binding")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some((exchange, target)) = targets.get(&row.get::<_, i64>(0)?) {
                let key = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
                bindings.exchanges.entry(exchange.clone()).or_default().insert(key, *target);
            }
        }
        tx.state.bindings = bindings;
        tx.state.purging = purging;
        Ok(())
    }
}

fn version(tx: &Tx<'_>) -> Step<i64> {
    Ok(tx.conn.prepare_cached("SELECT version FROM tidings_binding_version")?.query_row([], |r| r.get(0))?)
}

/// Makes every process read the bindings again.
pub(super) fn changed(tx: &Tx<'_>) -> Step<()> {
    tx.conn.prepare_cached("UPDATE tidings_binding_version SET version = version + 1")?.execute([])?;
    Ok(())
}
