//! The outbox in any SQL database: what relays read and settle. Rows that wait for their time are in `due`, leases in
//! `leases`, what operators ask in `care`.

mod care;
mod due;
mod leases;
mod sights;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::sights::Sights;
use super::driver::{Driver, Output, Reader};
use super::insert::{OutboxWriter, PARTS, text};
use super::statement::Sql;
use super::{Component, Dialect, Statement, Tables, Value};
use crate::event::Payload;
use crate::outbox::{
    FailedRow, Member, OutboxEvent, OutboxRow, OutboxStatus, OutboxStore, Page, PollLimit, Settled, WakeUp,
};
use crate::{Error, ErrorKind, Result};

/// States of a row.
const READY: &str = "0";
const SCHEDULED: &str = "1";
const WAITING: &str = "2";
const RETRYING: &str = "3";
const FAILED: &str = "4";
const PROCESSED: &str = "5";

/// What a relay reads of a row.
const ROW: &str = "id, exchange, ordering_key, headers, body, attempts";
/// Most rows that one statement looks for in order to change them.
const SOME: usize = 1000;
/// Longest error text that is kept, in bytes.
const MAX_ERROR: usize = 2000;

/// The outbox behind one driver.
#[derive(Debug)]
pub(crate) struct SqlStore {
    driver: Arc<dyn Driver>,
    writer: OutboxWriter,
    outbox: String,
    relay: String,
    part: String,
    tables: Tables,
    sights: Mutex<Sights>,
}

impl SqlStore {
    pub(crate) fn new(driver: Arc<dyn Driver>, tables: Tables) -> Self {
        let dialect = driver.dialect();
        Self {
            writer: OutboxWriter::new(dialect).tables(tables.clone()).notify(true),
            outbox: tables.outbox(dialect),
            relay: tables.relay(dialect),
            part: tables.part(dialect),
            tables,
            sights: Mutex::default(),
            driver,
        }
    }

    fn dialect(&self) -> Dialect {
        self.driver.dialect()
    }

    fn sql(&self, text: &str) -> Sql {
        Sql::new(self.dialect()).sql(text)
    }

    fn text(&self, value: &str) -> Value {
        text(self.dialect(), value)
    }

    /// `… AND part IN …`, or nothing where the relay has all.
    fn of_parts(sql: Sql, parts: &[u16]) -> Sql {
        if parts.len() == usize::from(PARTS) {
            return sql;
        }
        sql.sql(" AND part").any_of(parts.iter().map(|part| i64::from(*part)))
    }

    /// Only while the relay has its entry.
    fn held_by(&self, sql: Sql, owner: &str) -> Sql {
        sql.sql(&format!(" AND EXISTS (SELECT 1 FROM {} WHERE owner = ", self.relay)).bind(self.text(owner)).sql(")")
    }

    /// The table in an UPDATE, which finds its rows by this index. MySQL locks every row that it looks at, and waits for those
    /// of transactions that are open: it must not look at others.
    fn found_by(&self, index: &str) -> String {
        let outbox = &self.outbox;
        if self.dialect() == Dialect::MySql { format!("{outbox} FORCE INDEX ({index})") } else { outbox.clone() }
    }

    /// As [`found_by`](Self::found_by), of rows that are named by their ids.
    fn found_by_id(&self) -> String {
        self.found_by("PRIMARY")
    }

    /// The beginning of a DELETE of rows that are named by their ids.
    fn delete_by_id(&self) -> String {
        // MySQL takes the name of an index only where a DELETE could have several tables.
        let several = if self.dialect() == Dialect::MySql { "doomed FROM" } else { "FROM" };
        let table = self.found_by_id().replacen(" FORCE", " AS doomed FORCE", 1);
        format!("DELETE {several} {table}")
    }

    /// Ready rows carry no time; this lets MySQL read them from one index in the order of their ids.
    fn ready(&self) -> &'static str {
        if self.dialect() == Dialect::MySql { "state = 0 AND available_at IS NULL" } else { "state = 0" }
    }

    fn component(&self) -> Component {
        Component::outbox(self.dialect(), &self.tables)
    }

    fn settle_failed(&self, owner: &str, settled: &Settled) -> Vec<Statement> {
        let mut statements = Vec::new();
        for failed in &settled.failed {
            let now = self.dialect().now();
            let (state, after, tried) = match failed.retry_after {
                Some(after) => (RETRYING, Value::Int(micros(after)), now),
                None => (FAILED, Value::Null, "NULL"),
            };
            let error = crate::error::shorten(&failed.error, MAX_ERROR);
            let sql = self
                .sql(&format!(
                    "UPDATE {} SET state = {state}, attempts = attempts + 1, processed_at = {tried}, available_at = {now} + ",
                    self.found_by_id()
                ))
                .bind(after)
                .sql(", last_error = ")
                .bind(self.text(&error))
                .sql(&format!(" WHERE state IN ({READY}, {RETRYING}) AND id"))
                .any_of([failed.id]);
            statements.push(self.held_by(sql, owner).done());
        }
        statements
    }

    fn settle_done(&self, owner: &str, settled: &Settled) -> Option<Statement> {
        if settled.done.is_empty() {
            return None;
        }
        let sql = if settled.keep {
            let now = self.dialect().now();
            self.sql(&format!(
                "UPDATE {} SET state = {PROCESSED}, available_at = NULL, processed_at = {now}",
                self.found_by_id()
            ))
        } else {
            self.sql(&self.delete_by_id())
        };
        let sql =
            sql.sql(&format!(" WHERE state IN ({READY}, {RETRYING}) AND id")).any_of(settled.done.iter().copied());
        Some(self.held_by(sql, owner).done())
    }

    async fn rows(&self, statement: Statement) -> Result<Vec<OutboxRow>> {
        self.driver.run(statement).await?.rows.into_iter().map(row).collect()
    }

    async fn keys(&self, states: &str, parts: &[u16], most: Option<usize>) -> Result<Vec<String>> {
        let sql = self.sql(&format!(
            "SELECT DISTINCT ordering_key FROM {} WHERE state IN ({states}) AND ordering_key IS NOT NULL",
            self.outbox
        ));
        let mut sql = Self::of_parts(sql, parts);
        if let Some(most) = most {
            sql = sql.sql(" LIMIT ").bind(count(most));
        }
        Ok(texts(self.driver.run(sql.done()).await?))
    }
}

#[async_trait]
impl OutboxStore for SqlStore {
    async fn install(&self) -> Result<()> {
        self.driver.install(&self.component()).await
    }

    async fn check(&self) -> Result<()> {
        self.driver.check(&self.component()).await
    }

    async fn publish(&self, events: &[OutboxEvent]) -> Result<()> {
        let statements = self.writer.insert(self.dialect().default_style(), events)?;
        self.driver.transaction(statements).await.map(drop)
    }

    async fn join(&self, owner: &str, fence: &str, lease: Duration) -> Result<()> {
        self.enter(owner, fence, lease).await
    }

    async fn renew(&self, owner: &str, lease: Duration) -> Result<Vec<Member>> {
        self.prolong(owner, lease).await
    }

    async fn evict(&self, owner: &str) -> Result<bool> {
        self.remove_expired(owner).await
    }

    async fn acquire(&self, owner: &str, most: usize) -> Result<Vec<u16>> {
        self.take_parts(owner, most).await
    }

    async fn release(&self, owner: &str, parts: &[u16]) -> Result<()> {
        self.give_parts(owner, parts).await
    }

    async fn leave(&self, owner: &str) -> Result<()> {
        self.give_all(owner).await
    }

    async fn poll(&self, parts: &[u16], limit: PollLimit) -> Result<Page> {
        // The sum runs along the ids, so what lies behind the limit is never read from where large values are kept.
        let sql = self.sql(&format!(
            "SELECT {ROW}, bytes FROM (SELECT {ROW}, sum(octet_length(body) + coalesce(octet_length(headers), 0)) \
             OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS bytes, row_number() OVER (ORDER BY id) AS place \
             FROM (SELECT {ROW} FROM {} WHERE {}",
            self.outbox,
            self.ready()
        ));
        let sql = Self::of_parts(sql, parts)
            .sql(" ORDER BY id LIMIT ")
            .bind(count(limit.rows))
            .sql(") ready) page WHERE bytes <= ")
            .bind(count(limit.bytes))
            .sql(" OR place = 1 ORDER BY id");
        let mut statement = sql.done();
        if self.dialect() == Dialect::Sqlite {
            statement.sql = statement.sql.replace("octet_length", "length");
        }
        let rows = self.rows(statement).await?;
        let bytes: usize =
            rows.iter().map(|row| row.body.len() + row.headers.as_ref().map_or(0, |headers| headers.len())).sum();
        let more = rows.len() >= limit.rows || bytes > limit.bytes / 2;
        Ok(Page::new(rows, more))
    }

    async fn poll_retries(&self, parts: &[u16], most: usize) -> Result<Vec<OutboxRow>> {
        self.due_retries(parts, most).await
    }

    async fn promote(&self, parts: &[u16]) -> Result<Option<Duration>> {
        self.promote_due(parts).await
    }

    async fn settle(&self, owner: &str, settled: Settled) -> Result<()> {
        let mut statements = self.settle_failed(owner, &settled);
        statements.extend(self.settle_done(owner, &settled));
        if !settled.waiting.is_empty() {
            let rows = self.found_by_id();
            let sql = self.sql(&format!("UPDATE {rows} SET state = {WAITING} WHERE state = {READY} AND id"));
            statements.push(self.held_by(sql.any_of(settled.waiting.iter().copied()), owner).done());
        }
        if !settled.unblocked.is_empty() {
            let index = self.tables.rename(self.dialect(), "tidings_outbox_key_index").unwrap_or_default();
            let rows = self.found_by(&index);
            let sql = self.sql(&format!("UPDATE {rows} SET state = {READY} WHERE state = {WAITING} AND ordering_key"));
            let sql = sql.any_text(settled.unblocked.iter().map(|key| self.text(key)));
            statements.push(self.held_by(sql, owner).done());
        }
        match statements.len() {
            0 => Ok(()),
            1 => self.driver.run(statements.remove(0)).await.map(drop),
            _ => self.driver.transaction(statements).await.map(drop),
        }
    }

    async fn blocked(&self, parts: &[u16], most: usize) -> Result<Vec<String>> {
        self.keys(&format!("{RETRYING}, {FAILED}"), parts, Some(most)).await
    }

    async fn waiting(&self, parts: &[u16]) -> Result<Vec<String>> {
        self.keys(WAITING, parts, None).await
    }

    async fn status(&self) -> Result<OutboxStatus> {
        self.count_states().await
    }

    async fn oldest(&self) -> Result<Option<Duration>> {
        self.oldest_age().await
    }

    async fn busy(&self) -> Result<bool> {
        self.is_anything_due().await
    }

    async fn failed(&self, after: i64, limit: usize) -> Result<Vec<FailedRow>> {
        self.failed_rows(after, limit).await
    }

    async fn retry(&self, ids: &[i64]) -> Result<u64> {
        self.retry_rows(ids).await
    }

    async fn discard(&self, ids: &[i64]) -> Result<u64> {
        self.discard_rows(ids).await
    }

    async fn purge(&self, age: Duration, limit: usize) -> Result<u64> {
        self.purge_rows(age, limit).await
    }

    async fn listen(&self) -> Result<Option<Box<dyn WakeUp>>> {
        self.driver.listen(&self.tables.channel()).await
    }

    async fn close(&self) -> Result<()> {
        self.driver.close().await
    }
}

fn row(row: Vec<Value>) -> Result<OutboxRow> {
    let mut row = Reader::new(row);
    let id = row.int().ok_or_else(|| Error::new(ErrorKind::Internal, "a row of the outbox has no id"))?;
    Ok(OutboxRow {
        id,
        exchange: row.text().map(Into::into),
        key: row.text().map(Into::into),
        headers: row.bytes().map(Payload::from),
        body: row.bytes().unwrap_or_default().into(),
        attempts: row.int().and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(0),
    })
}

fn numbers(output: Output) -> Vec<i64> {
    output.rows.into_iter().filter_map(|row| Reader::new(row).int()).collect()
}

fn texts(output: Output) -> Vec<String> {
    output.rows.into_iter().filter_map(|row| Reader::new(row).text()).collect()
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
