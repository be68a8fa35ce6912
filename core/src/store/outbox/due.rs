//! Rows that wait for their time: scheduled ones, and those that are tried again.

use std::time::Duration;

use super::{READY, RETRYING, ROW, SCHEDULED, SOME, SqlStore, count, duration, numbers};
use crate::Result;
use crate::outbox::OutboxRow;
use crate::store::driver::Reader;

/// When rows fall due, by the database's clock.
struct Due {
    /// Microseconds until the next one does.
    next: Option<i64>,
    /// The clock was set back behind the last try of a row.
    set_back: bool,
}

impl SqlStore {
    pub(super) async fn due_retries(&self, parts: &[u16], most: usize) -> Result<Vec<OutboxRow>> {
        let now = self.dialect().now();
        let sql =
            self.sql(&format!("SELECT {ROW} FROM {} WHERE state = {RETRYING} AND available_at <= {now}", self.outbox));
        let sql = Self::of_parts(sql, parts).sql(" ORDER BY available_at, id LIMIT ").bind(count(most));
        self.rows(sql.done()).await
    }

    pub(super) async fn promote_due(&self, parts: &[u16]) -> Result<Option<Duration>> {
        let (now, outbox) = (self.dialect().now(), &self.outbox);
        let due = self.next_due(parts).await?;
        if due.set_back {
            self.retry_those_of_the_future(parts).await?;
            return Ok(Some(Duration::ZERO));
        }
        let Some(left) = due.next else { return Ok(None) };
        if left > 0 {
            return Ok(Some(duration(left)));
        }
        let due = self.sql(&format!("SELECT id FROM {outbox} WHERE state = {SCHEDULED} AND available_at <= {now}"));
        let due = Self::of_parts(due, parts).sql(" ORDER BY available_at LIMIT ").bind(count(SOME));
        let ids = numbers(self.driver.run(due.done()).await?);
        let sql = self.sql(&format!(
            "UPDATE {} SET state = {READY}, available_at = NULL WHERE state = {SCHEDULED} AND id",
            self.found_by_id()
        ));
        self.driver.run(sql.any_of(ids).done()).await?;
        Ok(self.next_due(parts).await?.next.map(duration))
    }

    /// When rows fall due.
    async fn next_due(&self, parts: &[u16]) -> Result<Due> {
        let now = self.dialect().now();
        let mut sql = self.sql("SELECT ");
        let (first, last) = ("available_at LIMIT 1", "available_at DESC LIMIT 1");
        for (state, what, order) in
            [(SCHEDULED, "available_at", first), (RETRYING, "available_at", first), (RETRYING, "processed_at", last)]
        {
            let one = format!("(SELECT {what} FROM {} WHERE state = {state} AND {what} IS NOT NULL", self.outbox);
            sql = Self::of_parts(sql.sql(&one), parts);
            sql.push(&format!(" ORDER BY {order}) - {now}, "));
        }
        let rows = self.driver.run(sql.sql("0").done()).await?.rows;
        let mut row = Reader::new(rows.into_iter().next().unwrap_or_default());
        let (scheduled, retrying, tried) = (row.int(), row.int(), row.int());
        Ok(Due { next: scheduled.into_iter().chain(retrying).min(), set_back: tried.is_some_and(|tried| tried > 0) })
    }

    /// Ends the back-off of rows that were tried at a time that has not come: the clock was set back since, and they would wait
    /// until it is there again.
    async fn retry_those_of_the_future(&self, parts: &[u16]) -> Result<()> {
        let (now, outbox) = (self.dialect().now(), &self.outbox);
        let rows = self.sql(&format!("SELECT id FROM {outbox} WHERE state = {RETRYING} AND processed_at > {now}"));
        let rows = Self::of_parts(rows, parts).sql(" LIMIT ").bind(count(SOME));
        let ids = numbers(self.driver.run(rows.done()).await?);
        let sql = self.sql(&format!(
            "UPDATE {} SET available_at = {now}, processed_at = NULL WHERE state = {RETRYING} AND id",
            self.found_by_id()
        ));
        self.driver.run(sql.any_of(ids).done()).await.map(drop)
    }
}
