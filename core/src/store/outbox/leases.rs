//! Relays among themselves: their entries, and who has which parts.

use std::time::Duration;

use super::sights::Entry;
use super::{SqlStore, micros, numbers};
use crate::Result;
use crate::outbox::Member;
use crate::store::driver::Reader;
use crate::store::{Dialect, Statement};

impl SqlStore {
    pub(super) async fn enter(&self, owner: &str, fence: &str, lease: Duration) -> Result<()> {
        let now = self.driver.lease_clock();
        let sql = self
            .sql(&format!("INSERT INTO {} (owner, fence, until, started_at) VALUES (", self.relay))
            .bind(self.text(owner))
            .sql(", ")
            .bind(self.text(fence))
            .sql(&format!(", {now} + "))
            .bind(micros(lease))
            .sql(&format!(", {now})"));
        self.driver.run(sql.done()).await.map(drop)
    }

    pub(super) async fn prolong(&self, owner: &str, lease: Duration) -> Result<Vec<Member>> {
        let now = self.driver.lease_clock();
        let prolong = self
            .sql(&format!("UPDATE {} SET started_at = {now}, until = {now} + ", self.relay))
            .bind(micros(lease))
            .sql(" WHERE owner = ")
            .bind(self.text(owner));
        let relay = &self.relay;
        let list = self.sql(&format!("SELECT owner, fence, until - {now}, until, until - started_at FROM {relay}"));
        self.driver.run(prolong.done()).await?;
        let entries = self.driver.run(list.done()).await?.rows.into_iter().map(|row| {
            let mut row = Reader::new(row);
            Entry {
                owner: row.text().unwrap_or_default(),
                fence: row.text().unwrap_or_default(),
                left: row.int().unwrap_or(0),
                until: row.int().unwrap_or(0),
                lease: row.int().unwrap_or(0),
            }
        });
        Ok(self.sights.lock().look(entries.collect()))
    }

    pub(super) async fn remove_expired(&self, owner: &str) -> Result<bool> {
        let Some(until) = self.sights.lock().ended(owner) else { return Ok(false) };
        // As it was seen: a renewal since then keeps it.
        let sql = self.sql(&format!("DELETE FROM {} WHERE until = ", self.relay)).bind(until);
        let evict = sql.sql(" AND owner = ").bind(self.text(owner)).done();
        let outputs = self.driver.transaction(self.turn().into_iter().chain([evict]).collect()).await?;
        Ok(outputs.last().is_some_and(|output| output.affected > 0))
    }

    pub(super) async fn take_parts(&self, owner: &str, most: usize) -> Result<Vec<u16>> {
        let free = format!("(owner IS NULL OR owner NOT IN (SELECT owner FROM {}))", self.relay);
        let mut statements: Vec<_> = self.turn().into_iter().collect();
        if most > 0 {
            let look = self.sql(&format!("SELECT part FROM {} WHERE {free}", self.part)).done();
            let mut parts = numbers(self.driver.run(look).await?);
            // Relays that start at the same time do not all want the same ones.
            fastrand::shuffle(&mut parts);
            parts.truncate(most);
            let take = self.sql(&format!("UPDATE {} SET owner = ", self.part)).bind(self.text(owner));
            let take = take.sql(&format!(" WHERE {free} AND part")).any_of(parts);
            statements.push(self.held_by(take, owner).done());
        }
        let have = self.sql(&format!("SELECT part FROM {} WHERE owner = ", self.part)).bind(self.text(owner));
        statements.push(have.sql(" ORDER BY part").done());
        let outputs = self.driver.transaction(statements).await?;
        let parts = outputs.into_iter().next_back().map(numbers).unwrap_or_default();
        Ok(parts.into_iter().filter_map(|part| u16::try_from(part).ok()).collect())
    }

    pub(super) async fn give_parts(&self, owner: &str, parts: &[u16]) -> Result<()> {
        let sql = self.sql(&format!("UPDATE {} SET owner = NULL WHERE owner = ", self.part)).bind(self.text(owner));
        let release = sql.sql(" AND part").any_of(parts.iter().map(|part| i64::from(*part))).done();
        self.driver.transaction(self.turn().into_iter().chain([release]).collect()).await.map(drop)
    }

    pub(super) async fn give_all(&self, owner: &str) -> Result<()> {
        let part = self.sql(&format!("UPDATE {} SET owner = NULL WHERE owner = ", self.part)).bind(self.text(owner));
        let relay = self.sql(&format!("DELETE FROM {} WHERE owner = ", self.relay)).bind(self.text(owner));
        self.driver.transaction(self.turn().into_iter().chain([part.done(), relay.done()]).collect()).await.map(drop)
    }

    /// Makes whoever assigns parts wait for whoever does so already, so that it sees what came of it.
    fn turn(&self) -> Option<Statement> {
        let lock = match self.dialect() {
            // It has one writer at a time.
            Dialect::Sqlite => return None,
            Dialect::Postgres | Dialect::MySql => "FOR UPDATE",
        };
        Some(self.sql(&format!("SELECT part FROM {} WHERE part = 0 {lock}", self.part)).done())
    }
}
