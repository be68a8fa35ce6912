//! Holds what the services wrote down against what the file says, event by event.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::aircraft_log::NO_TAIL;
use crate::flights::{ARRIVED, CANCELLED, DEPARTED, DIVERTED, Day, Happening, KINDS};
use crate::ledger::Entry;
use crate::story::thousands;
use crate::table::Table;

/// What is known at the end of the day.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Changes that operations has committed, each with its event.
    pub(crate) committed: usize,
    /// Flights by what became of them, as operations knows it.
    pub(crate) flights: BTreeMap<String, u32>,
    /// Events that the relay has not published.
    pub(crate) unpublished: usize,
    pub(crate) log: Vec<Entry>,
    pub(crate) notices: Vec<Entry>,
    /// Dead letters of the notifier.
    pub(crate) notices_given_up: usize,
    /// Dead letters of the aircraft log before the replay, by reason.
    pub(crate) dead: BTreeMap<String, Dead>,
    pub(crate) dry_run: usize,
    pub(crate) replayed: usize,
    /// Retries that came before their delay was over.
    pub(crate) early: usize,
    /// Events and dead letters that are still in the subscriptions.
    pub(crate) left: usize,
    /// The broker keeps the order per key.
    pub(crate) ordered: bool,
}

/// Events that were given up on for one reason.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dead {
    /// What one of them says.
    pub(crate) example: String,
    /// A crash in the wrong moment leaves an event twice; it is still one event.
    pub(crate) ids: HashSet<String>,
}

/// What came out of the comparison.
pub(crate) struct Findings {
    pub(crate) table: Table,
    pub(crate) lost: usize,
    pub(crate) out_of_order: usize,
}

/// Kind and flight: what makes two events the same.
type Name<'a> = (&'a str, u32);

pub(crate) fn audit(day: &Day, evidence: &Evidence) -> Findings {
    let log: Vec<&Entry> = evidence.log.iter().filter(|entry| !entry.again).collect();
    let notices: Vec<&Entry> = evidence.notices.iter().filter(|entry| !entry.again).collect();
    let lost = missing(day, &log, |_| true) + missing(day, &notices, Happening::is_news);
    let mut table = Table::default();

    table.row("changes committed, each with its event", day.events.len(), evidence.committed);
    for kind in [ARRIVED, CANCELLED, DIVERTED] {
        let status = kind.trim_start_matches("flight.");
        let flights = evidence.flights.get(status).map_or(0, |flights| *flights as usize);
        table.row(&format!("… and flights that are {status}"), day.count(|event| event.routing_key == kind), flights);
    }
    table.row("events left in the outbox", 0, evidence.unpublished);
    for kind in KINDS {
        let label = format!("aircraft log: {kind}");
        let logged = log.iter().filter(|entry| entry.routing_key == kind).count();
        table.row(&label, day.count(|event| event.routing_key == kind), logged);
    }
    table.row(
        "dead letters, all of them",
        day.count(Happening::has_no_tail),
        evidence.dead.values().map(|dead| dead.ids.len()).sum(),
    );
    let because = evidence.dead.get(NO_TAIL).map_or(0, |dead| dead.ids.len());
    table.row(&format!("… because: {NO_TAIL}"), day.count(Happening::has_no_tail), because);
    table.row("… that a dry run of the replay found", day.count(Happening::has_no_tail), evidence.dry_run);
    table.row("… replayed after the fix", day.count(Happening::has_no_tail), evidence.replayed);
    table.row("passengers' notices: cancelled, diverted", day.count(Happening::is_news), notices.len());
    table.row("… sent twice", 0, repeated(&notices));
    table.row("… given up on", 0, evidence.notices_given_up);
    table.row("retries before their delay was over", 0, evidence.early);

    let planned = by_aircraft(day.events.iter().map(|event| (event.flight.tail.as_deref(), name(event))));
    let logged = by_aircraft(log.iter().map(|entry| (entry.tail.as_deref(), entry_name(entry))));
    table.row("aircraft", day.aircraft(), logged.len());
    let in_turn = |aircraft: &HashMap<_, Vec<Name<'_>>>| aircraft.values().filter(|events| alternates(events)).count();
    let too_soon = |aircraft: &HashMap<_, Vec<Name<'_>>>| aircraft.values().map(|events| departed_aloft(events)).sum();
    let in_order = planned.iter().filter(|(tail, events)| logged.get(*tail) == Some(*events)).count();
    let out_of_order = planned.iter().map(|(tail, events)| inversions(events, logged.get(tail))).sum();
    if evidence.ordered {
        table.row("… with all their events in order", planned.len(), in_order);
        table.row("… that departed and landed in turn", in_turn(&planned), in_turn(&logged));
        table.row("two departures with no landing in between", too_soon(&planned), too_soon(&logged));
        table.row("events out of order", 0, out_of_order);
    } else {
        table.not_promised("… with all their events in order", planned.len(), in_order);
        table.not_promised("… that departed and landed in turn", in_turn(&planned), in_turn(&logged));
        table.not_promised("two departures with no landing in between", too_soon(&planned), too_soon(&logged));
        table.not_promised("events out of order", 0, out_of_order);
    }
    table.row("logged twice", 0, repeated(&log));
    table.row("lost", 0, lost);
    table.row("left over in the subscriptions", 0, evidence.left);
    Findings { table, lost, out_of_order }
}

/// One line for what was delivered more than once and did no harm.
pub(crate) fn repetitions(evidence: &Evidence) -> String {
    let again = |entries: &[Entry]| thousands(entries.iter().filter(|entry| entry.again).count());
    format!(
        "Delivered again and recognised: {} to the aircraft log by its file, {} to the notifier by its inbox.",
        again(&evidence.log),
        again(&evidence.notices)
    )
}

fn name(event: &Happening) -> Name<'_> {
    (event.routing_key, event.flight.id)
}

fn entry_name(entry: &Entry) -> Name<'_> {
    (&entry.routing_key, entry.flight)
}

fn missing(day: &Day, entries: &[&Entry], wanted: impl Fn(&Happening) -> bool) -> usize {
    let there: HashSet<Name<'_>> = entries.iter().map(|entry| entry_name(entry)).collect();
    day.count(|event| wanted(event) && !there.contains(&name(event)))
}

fn repeated(entries: &[&Entry]) -> usize {
    entries.len() - entries.iter().map(|entry| entry_name(entry)).collect::<HashSet<_>>().len()
}

fn by_aircraft<'a>(events: impl Iterator<Item = (Option<&'a str>, Name<'a>)>) -> HashMap<&'a str, Vec<Name<'a>>> {
    let mut aircraft: HashMap<_, Vec<_>> = HashMap::new();
    for (tail, event) in events {
        if let Some(tail) = tail {
            aircraft.entry(tail).or_default().push(event);
        }
    }
    aircraft
}

/// The moves of an aircraft: whether it departs.
fn moves(events: &[Name<'_>]) -> Vec<bool> {
    let moves = events.iter().filter(|(kind, _)| [DEPARTED, ARRIVED, DIVERTED].contains(kind));
    moves.map(|(kind, _)| *kind == DEPARTED).collect()
}

/// Two departures without a landing between them: in the whole year the file has some, all of them its own errors.
fn departed_aloft(events: &[Name<'_>]) -> usize {
    moves(events).windows(2).filter(|pair| pair[0] && pair[1]).count()
}

/// Departure, landing, departure, …: of aircraft that flew at all.
fn alternates(events: &[Name<'_>]) -> bool {
    let moves = moves(events);
    !moves.is_empty() && moves.iter().zip([true, false].into_iter().cycle()).all(|(departs, due)| *departs == due)
}

/// Events that came after one which they should have come before.
fn inversions(planned: &[Name<'_>], logged: Option<&Vec<Name<'_>>>) -> usize {
    let places: HashMap<&Name<'_>, usize> = planned.iter().zip(0..).collect();
    let mut furthest = 0;
    let mut late = 0;
    for place in logged.into_iter().flatten().filter_map(|event| places.get(event)) {
        late += usize::from(*place < furthest);
        furthest = furthest.max(*place);
    }
    late
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights::the_day;

    fn dead(reason: &str) -> BTreeMap<String, Dead> {
        let ids = (0..322).map(|n: usize| n.to_string()).collect();
        BTreeMap::from([(reason.to_owned(), Dead { example: String::new(), ids })])
    }

    fn perfect(day: &Day) -> Evidence {
        let entry = |event: &Happening| Entry {
            id: format!("{} {}", event.routing_key, event.flight.number),
            routing_key: event.routing_key.into(),
            flight: event.flight.id,
            tail: event.flight.tail.clone(),
            again: false,
        };
        Evidence {
            committed: 2318,
            flights: [("arrived", 455), ("cancelled", 472), ("diverted", 3)].map(|(what, n)| (what.into(), n)).into(),
            log: day.events.iter().map(entry).collect(),
            notices: day.events.iter().filter(|event| event.is_news()).map(entry).collect(),
            dead: dead(NO_TAIL),
            dry_run: 322,
            replayed: 322,
            ordered: true,
            ..Evidence::default()
        }
    }

    #[test]
    fn a_perfect_day_differs_nowhere() {
        let day = the_day();
        let findings = audit(&day, &perfect(&day));
        assert_eq!((findings.table.differences(), findings.lost, findings.out_of_order), (0, 0, 0));
    }

    #[test]
    fn repetitions_that_were_recognised_are_fine() {
        let day = the_day();
        let mut evidence = perfect(&day);
        evidence.log.push(Entry { again: true, ..evidence.log[7].clone() });
        assert_eq!(audit(&day, &evidence).table.differences(), 0);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        type Damage = fn(&mut Evidence);
        let damages: [(&str, Damage); 11] = [
            ("a change less", |e| e.flights.clear()),
            ("something left in the outbox", |e| e.unpublished = 1),
            ("an event less", |e| drop(e.log.pop())),
            ("an event twice", |e| e.log.push(e.log[0].clone())),
            ("a notice less", |e| drop(e.notices.pop())),
            ("a notice twice", |e| e.notices.push(e.notices[0].clone())),
            ("the wrong notice", |e| e.notices[0].flight = 1),
            ("another reason", |e| e.dead = dead("error")),
            ("an early retry", |e| e.early = 1),
            ("something left", |e| e.left = 1),
            ("the wrong order", |e| e.log.reverse()),
        ];
        let day = the_day();
        for (what, damage) in damages {
            let mut evidence = perfect(&day);
            damage(&mut evidence);
            assert!(audit(&day, &evidence).table.differences() > 0, "{what} was not found");
        }
    }

    #[test]
    fn order_counts_only_where_it_is_promised() {
        let day = the_day();
        let mut evidence = perfect(&day);
        evidence.log.reverse();
        evidence.ordered = false;
        let findings = audit(&day, &evidence);
        assert_eq!(findings.table.differences(), 0);
        assert!(findings.out_of_order > 0);
        assert!(findings.table.to_string().contains("not promised"));
    }
}
