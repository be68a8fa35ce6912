//! Looking after the rows: counts, ages, those that failed, those that are kept.

use std::time::Duration;

use super::{FAILED, PROCESSED, RETRYING, SCHEDULED, SqlStore, WAITING, count, duration, micros, numbers};
use crate::Result;
use crate::outbox::{FailedRow, OutboxStatus};
use crate::store::Value;
use crate::store::driver::Reader;

impl SqlStore {
    pub(super) async fn count_states(&self) -> Result<OutboxStatus> {
        let sql = self.sql(&format!("SELECT state, count(*) FROM {} GROUP BY state", self.outbox));
        let mut status = OutboxStatus::default();
        for row in self.driver.run(sql.done()).await?.rows {
            let mut row = Reader::new(row);
            let (state, count) = (row.int().unwrap_or(-1), row.int().unwrap_or(0));
            let count = u64::try_from(count).unwrap_or(0);
            match state.to_string().as_str() {
                FAILED => status.failed += count,
                PROCESSED => status.processed += count,
                _ => status.pending += count,
            }
        }
        status.oldest = self.oldest_age().await?;
        Ok(status)
    }

    pub(super) async fn oldest_age(&self) -> Result<Option<Duration>> {
        let (now, outbox) = (self.dialect().now(), &self.outbox);
        // The first of each state is the oldest of it, or near enough.
        let first = |state: &str| format!("(SELECT created_at FROM {outbox} WHERE {state} ORDER BY id LIMIT 1)");
        let states = [self.ready(), "state = 2", "state = 3"].map(first);
        let sql = self.sql(&format!("SELECT {now} - {}, {now} - {}, {now} - {}", states[0], states[1], states[2]));
        let ages = self.driver.run(sql.done()).await?.rows.into_iter().flatten().filter_map(|value| match value {
            Value::Int(age) => Some(age),
            _ => None,
        });
        Ok(ages.max().map(duration))
    }

    pub(super) async fn is_anything_due(&self) -> Result<bool> {
        let (now, outbox) = (self.dialect().now(), &self.outbox);
        let sql = format!(
            "SELECT 1 FROM (SELECT 1 AS n) one WHERE EXISTS (SELECT 1 FROM {outbox} WHERE {}) \
             OR EXISTS (SELECT 1 FROM {outbox} WHERE state = {RETRYING}) \
             OR EXISTS (SELECT 1 FROM {outbox} WHERE state = {SCHEDULED} AND available_at <= {now}) \
             OR EXISTS (SELECT 1 FROM (SELECT DISTINCT ordering_key FROM {outbox} WHERE state = {WAITING}) waiting WHERE \
             NOT EXISTS (SELECT 1 FROM {outbox} failed WHERE failed.ordering_key = waiting.ordering_key AND state IN ({RETRYING}, {FAILED})))",
            self.ready()
        );
        Ok(!self.driver.run(self.sql(&sql).done()).await?.rows.is_empty())
    }

    pub(super) async fn failed_rows(&self, after: i64, limit: usize) -> Result<Vec<FailedRow>> {
        let sql = self
            .sql(&format!(
                "SELECT id, event_id, routing_key, ordering_key, attempts, last_error FROM {} WHERE state = {FAILED} AND id > ",
                self.outbox
            ))
            .bind(after)
            .sql(" ORDER BY id LIMIT ")
            .bind(count(limit));
        let rows = self.driver.run(sql.done()).await?.rows.into_iter().map(|row| {
            let mut row = Reader::new(row);
            let mut failed = FailedRow::new(row.int().unwrap_or(0));
            failed.event_id = row.text().unwrap_or_default();
            failed.routing_key = row.text().unwrap_or_default();
            failed.key = row.text();
            failed.attempts = u32::try_from(row.int().unwrap_or(0)).unwrap_or(0);
            failed.error = row.text().unwrap_or_default();
            failed
        });
        Ok(rows.collect())
    }

    pub(super) async fn retry_rows(&self, ids: &[i64]) -> Result<u64> {
        let sql = self.sql(&format!(
            "UPDATE {} SET state = {RETRYING}, attempts = 0, processed_at = NULL, available_at = {} WHERE state = {FAILED} AND id",
            self.found_by_id(),
            self.dialect().now()
        ));
        Ok(self.driver.run(sql.any_of(ids.iter().copied()).done()).await?.affected)
    }

    pub(super) async fn discard_rows(&self, ids: &[i64]) -> Result<u64> {
        let sql = self.sql(&format!("{} WHERE state = {FAILED} AND id", self.delete_by_id()));
        Ok(self.driver.run(sql.any_of(ids.iter().copied()).done()).await?.affected)
    }

    pub(super) async fn purge_rows(&self, age: Duration, limit: usize) -> Result<u64> {
        let (now, outbox) = (self.dialect().now(), &self.outbox);
        let old = self.sql(&format!("SELECT id FROM {outbox} WHERE state = {PROCESSED} AND processed_at < {now} - "));
        let old = self.driver.run(old.bind(micros(age)).sql(" LIMIT ").bind(count(limit)).done()).await?;
        let sql = self.sql(&format!("{} WHERE state = {PROCESSED} AND id", self.delete_by_id())).any_of(numbers(old));
        Ok(self.driver.run(sql.done()).await?.affected)
    }
}
