//! Every run of a handler with its beginning and end, by the clock that all processes of a machine share, and what is
//! wrong about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// A run of a handler.
#[derive(Debug, Clone)]
struct Run {
    client: usize,
    seq: u64,
    attempt: u64,
    begin: i64,
    /// `None`: its process did not live to see it.
    end: Option<i64>,
    ok: bool,
}

/// All runs, by key.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    keys: BTreeMap<String, Vec<Run>>,
    freezes: HashMap<usize, Vec<(i64, i64)>>,
    /// What was done to the processes.
    notes: Vec<(i64, String)>,
}

/// What is wrong.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Events that were first begun, or first finished, before an earlier one of their key.
    pub(crate) violations: Vec<String>,
    /// Two runs of a key at a time.
    pub(crate) overlaps: Vec<String>,
    /// More attempts than there may be.
    pub(crate) attempts: Vec<String>,
    /// Runs that a freeze of their process interrupted: it may finish the one it was in.
    pub(crate) frozen: usize,
}

/// What is wrong about effects behind an inbox.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) twice: Vec<String>,
    /// Behind the effect of a later event of the key.
    pub(crate) disordered: Vec<String>,
}

/// The time in microseconds since the epoch.
pub(crate) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

fn number(line: &Map<String, Value>, field: &str) -> u64 {
    line.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn key(line: &Map<String, Value>) -> Option<&str> {
    line.get("key").and_then(Value::as_str).filter(|key| !key.is_empty())
}

/// The number of the event with this id.
fn number_of(id: &str) -> Option<u64> {
    id.rsplit('.').next()?.parse().ok()
}

fn time(line: &Map<String, Value>) -> i64 {
    line.get("at_us").and_then(Value::as_i64).unwrap_or_default()
}

impl Diary {
    /// A handler says that it begins. Events without a key have no order.
    pub(crate) fn begin(&mut self, client: usize, line: &Map<String, Value>) {
        let Some(key) = key(line) else { return };
        let (seq, attempt) = (number(line, "seq"), number(line, "attempt"));
        let run = Run { client, seq, attempt, begin: time(line), end: None, ok: false };
        self.keys.entry(key.to_owned()).or_default().push(run);
    }

    /// A handler says how it ended.
    pub(crate) fn end(&mut self, client: usize, line: &Map<String, Value>) {
        let Some(key) = key(line) else { return };
        let seq = number(line, "seq");
        let runs = self.keys.entry(key.to_owned()).or_default();
        if let Some(run) = runs.iter_mut().rev().find(|r| r.client == client && r.seq == seq && r.end.is_none()) {
            run.end = Some(time(line));
            run.ok = line.get("outcome").is_some_and(|outcome| outcome == "ok");
        }
    }

    /// Something was done.
    pub(crate) fn note(&mut self, what: String) {
        self.notes.push((now_us(), what));
    }

    /// Everything that happened to the keys of which something is wrong or missing, in the order of time.
    pub(crate) fn story(&self, found: &Findings, missing: &[String]) -> String {
        let wrong = found.violations.iter().chain(&found.overlaps).chain(&found.attempts);
        let mut keys: BTreeSet<&str> = wrong.filter_map(|text| text.split([':', '/']).next()).collect();
        let missing: BTreeSet<_> = missing.iter().filter_map(|id| number_of(id)).collect();
        let begun = self.keys.iter().filter(|(_, runs)| runs.iter().any(|run| missing.contains(&run.seq)));
        keys.extend(begun.map(|(key, _)| key.as_str()));
        let mut lines: Vec<(i64, String)> = self.notes.clone();
        for (key, run) in
            keys.iter().flat_map(|key| self.keys.get(*key).into_iter().flatten().map(move |run| (key, run)))
        {
            let (seq, attempt, client) = (run.seq, run.attempt, run.client);
            lines.push((run.begin, format!("client {client} begins {key}/{seq}, attempt {attempt}")));
            if let Some(end) = run.end {
                let how = if run.ok { "done" } else { "not done" };
                lines.push((end, format!("client {client} ends {key}/{seq}: {how}")));
            }
        }
        lines.sort();
        lines.iter().fold(String::new(), |story, (at, line)| format!("{story}{at} {line}\n"))
    }

    /// A process stood still.
    pub(crate) fn frozen(&mut self, client: usize, from: i64, to: i64) {
        self.freezes.entry(client).or_default().push((from, to));
    }

    /// What is wrong about the runs so far. Events of a key were published in the order of their numbers.
    pub(crate) fn judge(&self, max_retries: u32) -> Findings {
        let mut found = Findings::default();
        for (key, runs) in &self.keys {
            let mut runs = runs.clone();
            runs.sort_by_key(|run| run.begin);
            first_in_order(key, "begun", runs.iter().map(|run| run.seq), &mut found.violations);
            let mut ended: Vec<_> = runs.iter().filter(|run| run.ok).collect();
            ended.sort_by_key(|run| run.end);
            first_in_order(key, "finished", ended.iter().map(|run| run.seq), &mut found.violations);
            for run in runs.iter().filter(|run| run.attempt > u64::from(max_retries)) {
                found.attempts.push(format!("{key}/{} attempt {}", run.seq, run.attempt));
            }
            self.one_at_a_time(key, &runs, &mut found);
        }
        found
    }

    /// What is wrong about effects of events, by their ids, in the order in which they took place.
    pub(crate) fn judge_effects(&self, ids: &[String]) -> Effects {
        let keys: HashMap<u64, &str> =
            self.keys.iter().flat_map(|(key, runs)| runs.iter().map(move |run| (run.seq, key.as_str()))).collect();
        let (mut wrong, mut seen, mut newest) = (Effects::default(), BTreeSet::new(), HashMap::new());
        for (id, seq) in ids.iter().filter_map(|id| Some((id, number_of(id)?))) {
            if !seen.insert(seq) {
                wrong.twice.push(id.clone());
            } else if let Some(key) = keys.get(&seq)
                && newest.insert(*key, seq).is_some_and(|before| before > seq)
            {
                wrong.disordered.push(format!("{key}: {seq}"));
            }
        }
        wrong
    }

    fn one_at_a_time(&self, key: &str, runs: &[Run], found: &mut Findings) {
        let mut last: Option<&Run> = None;
        for run in runs {
            let Some(end) = run.end else { continue };
            if self.was_frozen(run.client, run.begin, end) {
                found.frozen += 1;
                continue;
            }
            if let Some(last) = last.filter(|last| last.end.is_some_and(|end| run.begin < end)) {
                found.overlaps.push(format!(
                    "{key}: {} by {} from {} to {end}, while {} by {} ran until {}",
                    run.seq,
                    run.client,
                    run.begin,
                    last.seq,
                    last.client,
                    last.end.unwrap_or_default()
                ));
            }
            last = Some(run);
        }
    }

    fn was_frozen(&self, client: usize, begin: i64, end: i64) -> bool {
        self.freezes.get(&client).into_iter().flatten().any(|(from, to)| begin <= *to && end >= *from)
    }
}

/// The first occurrences have to be in order.
fn first_in_order(key: &str, what: &str, seqs: impl Iterator<Item = u64>, violations: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    let mut newest = None;
    for seq in seqs {
        if seen.insert(seq) {
            if newest.is_some_and(|newest| newest > seq) {
                violations.push(format!("{key}: {seq} {what} after {}", newest.unwrap_or_default()));
            }
            newest = newest.max(Some(seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Diary;

    fn line(key: &str, seq: u64, attempt: u64, at: i64, outcome: &str) -> serde_json::Map<String, serde_json::Value> {
        let line = json!({"key": key, "seq": seq, "attempt": attempt, "at_us": at, "outcome": outcome});
        line.as_object().cloned().unwrap_or_default()
    }

    fn run(diary: &mut Diary, client: usize, seq: u64, attempt: u64, (begin, end): (i64, i64)) {
        diary.begin(client, &line("k", seq, attempt, begin, ""));
        diary.end(client, &line("k", seq, attempt, end, "ok"));
    }

    #[test]
    fn tells_duplicates_from_violations() {
        let mut diary = Diary::default();
        for (seq, at) in [(1, 10), (2, 20), (1, 30), (3, 40)] {
            run(&mut diary, 1, seq, 0, (at, at + 5));
        }
        assert!(diary.judge(3).violations.is_empty(), "a duplicate may come late");
        run(&mut diary, 1, 5, 0, (50, 55));
        run(&mut diary, 1, 4, 4, (60, 65));
        let found = diary.judge(3);
        assert_eq!((found.violations.len(), found.attempts.len(), found.overlaps.len()), (2, 1, 0));
    }

    #[test]
    fn events_without_a_key_are_in_any_order() {
        let mut diary = Diary::default();
        for seq in [2, 1] {
            diary.begin(1, &line("", seq, 0, 10, ""));
            diary.end(1, &line("", seq, 0, 20, "ok"));
        }
        let found = diary.judge(3);
        assert!(found.violations.is_empty() && found.overlaps.is_empty());
    }

    #[test]
    fn effects_take_place_once_and_in_order() {
        let mut diary = Diary::default();
        for seq in 1..6 {
            run(&mut diary, 1, seq, 0, (10, 15));
        }
        let ids = |seqs: &[u64]| seqs.iter().map(|seq| format!("x.{seq}")).collect::<Vec<_>>();
        let right = diary.judge_effects(&ids(&[1, 2, 3, 4, 5]));
        assert_eq!((right.twice.len(), right.disordered.len()), (0, 0));
        let wrong = diary.judge_effects(&ids(&[1, 3, 2, 3, 4]));
        assert_eq!((wrong.twice.len(), wrong.disordered.len()), (1, 1));
    }

    #[test]
    fn tells_freezes_from_overlaps() {
        let mut diary = Diary::default();
        run(&mut diary, 1, 1, 0, (10, 100));
        run(&mut diary, 2, 1, 0, (50, 60));
        assert_eq!(diary.judge(3).overlaps.len(), 1);
        diary.frozen(1, 20, 90);
        let found = diary.judge(3);
        assert_eq!((found.overlaps.len(), found.frozen), (0, 1));
    }
}
