//! What a relay would need of an outbox's database.

use std::time::Duration;

use super::{Check, Finding, Level};
use crate::outbox::{Outbox, Tables};
use crate::transport::registry::redact;

/// Older than this, no relay keeps up.
const LATE: Duration = Duration::from_secs(60);

/// Reaches the store and looks at its tables.
pub(super) async fn examine(url: &str, tables: Tables) -> Vec<Finding> {
    let subject = redact(url);
    let outbox = match Outbox::connect_existing(url, tables.clone()).await {
        Ok(outbox) => outbox,
        Err(error) => return vec![Finding::error(Check::Outbox, subject, &error)],
    };
    let mut findings = Vec::new();
    match outbox.check().await {
        Ok(()) => {
            findings.push(Finding::ok(Check::Schema, subject.as_str(), "the outbox's tables are of this version"));
            findings.extend(rows(&outbox, &subject).await);
            findings.extend(inboxes(url, &tables, &subject).await);
        }
        Err(error) => findings.push(Finding::error(Check::Schema, subject.as_str(), &error)),
    }
    if let Err(error) = outbox.close().await {
        findings.push(Finding::error(Check::Outbox, subject, &error));
    }
    findings
}

/// Every inbox that was ever installed beside the outbox.
async fn inboxes(url: &str, tables: &Tables, subject: &str) -> Vec<Finding> {
    let all = match crate::inbox::Inbox::all(url, tables).await {
        Ok(all) => all,
        Err(error) => return vec![Finding::error(Check::Schema, subject, &error)],
    };
    all.into_iter()
        .map(|(table, checked)| {
            let subject = format!("{subject}, inbox {table}");
            match checked {
                Ok(()) => Finding::ok(Check::Schema, subject, "it is of this version"),
                Err(error) => Finding::error(Check::Schema, subject, &error),
            }
        })
        .collect()
}

async fn rows(outbox: &Outbox, subject: &str) -> Vec<Finding> {
    let status = match outbox.status().await {
        Ok(status) => status,
        Err(error) => return vec![Finding::error(Check::Outbox, subject, &error)],
    };
    let mut findings = Vec::new();
    if status.failed > 0 {
        let message = format!("{} events were given up on", status.failed);
        let failed = Finding::new(Check::Outbox, Level::Warning, subject, message);
        findings.push(failed.remedy("tidings outbox failed lists them; then retry or discard"));
    }
    match status.oldest {
        Some(age) if age > LATE => {
            let message = format!("the oldest of {} events has waited for {} s", status.pending, age.as_secs());
            let late = Finding::new(Check::Outbox, Level::Problem, subject, message);
            findings.push(late.remedy("see whether a relay runs, and whether it reaches the broker"));
        }
        _ => findings.push(Finding::ok(Check::Outbox, subject, format!("{} events wait", status.pending))),
    }
    findings
}
