//! What a case of the outbox says in the end.

use super::OutboxRun;
use crate::ledger::Ledger;
use crate::tally::{Report, Tally};

/// Batches of a relay between publish and delete: one on its way, and the one before, which is being deleted.
const IN_FLIGHT: u64 = 2;

impl OutboxRun<'_> {
    pub(super) fn report(self, effects: &Ledger) -> Report {
        let back: Vec<String> = self.back_after.iter().map(|d| format!("{:.1}", d.as_secs_f64())).collect();
        let l = &self.ledger;
        let text = format!(
            "{} committed, {} lost, {} invented, {} out of order, {} arrived twice \
             (at most {} behind one blow); {} effects, {} missing, {} twice; \
             {} rolled back, {} unknown; {} blows, arriving again after {} s",
            l.confirmed,
            l.missing,
            l.invented.len(),
            self.disordered.len(),
            l.duplicated,
            self.most_behind_one_blow(),
            effects.confirmed - effects.missing,
            effects.missing,
            effects.duplicated,
            l.forbidden,
            self.unknown,
            self.struck.len(),
            back.join(" "),
        );
        let mut wrong = Vec::new();
        for (what, missing) in [("lost", l), ("without effect", effects)] {
            if missing.missing > 0 {
                wrong.push(format!("{what}: {}", missing.examples_of_missing().join(" ")));
            }
        }
        let all = [("invented", &l.invented), ("effects invented", &effects.invented), ("told twice", &l.nonsense)];
        for (what, all) in all.into_iter().chain([("out of order", &self.disordered)]) {
            if !all.is_empty() {
                wrong.push(format!("{what}: {}", all[..all.len().min(5)].join(" ")));
            }
        }
        if effects.duplicated > 0 {
            wrong.push("effects twice".to_owned());
        }
        let most = self.struck.len() as u64 * IN_FLIGHT * self.batch() as u64;
        if l.duplicated > most && self.struck.iter().all(|(_, blow)| blow.is_bounded()) {
            wrong.push(format!("{} arrived twice, relays had no more than {most} on their way", l.duplicated));
        }
        if !self.blows.is_empty() || self.healed.is_some() {
            wrong.push(format!("{} blows never struck", self.blows.len()));
        }
        if !wrong.is_empty() {
            wrong.extend(self.struck.iter().map(|(at, blow)| format!("{blow:?} at {:.1} s", at.as_secs_f64())));
        }
        let tally = Tally {
            events: l.confirmed,
            faults: self.struck.len() as u64,
            lost: l.missing + effects.missing,
            invented: (l.invented.len() + effects.invented.len()) as u64,
            duplicated: l.duplicated,
            effects_twice: effects.duplicated,
            out_of_order: self.disordered.len() as u64,
            ..Tally::default()
        };
        wrong.extend(self.dismiss().err());
        Report { text, wrong, tally }
    }

    /// The largest number of events that arrived again between one blow and the next.
    fn most_behind_one_blow(&self) -> u64 {
        let after = self.duplicated_before.iter().skip(1).chain([&self.ledger.duplicated]);
        self.duplicated_before.iter().zip(after).map(|(before, after)| after - before).max().unwrap_or(0)
    }
}
