//! The day as the file tells it: its flights, the events that they make, and the figures that must come out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidings::BoxError;

pub(crate) const SCHEDULED: &str = "flight.scheduled";
pub(crate) const DEPARTED: &str = "flight.departed";
pub(crate) const ARRIVED: &str = "flight.arrived";
pub(crate) const CANCELLED: &str = "flight.cancelled";
pub(crate) const DIVERTED: &str = "flight.diverted";
/// In the order in which the table shows them.
pub(crate) const KINDS: [&str; 5] = [SCHEDULED, DEPARTED, ARRIVED, CANCELLED, DIVERTED];

/// Minutes until an aircraft is on the ground somewhere else; the file does not say, its source note does.
const DIVERTED_AFTER: i64 = 120;

/// What every event of a flight says. The aircraft is also the ordering key; some flights have none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flight {
    /// Its line in the file.
    pub(crate) id: u32,
    /// Carrier and number: `UA 1018`.
    pub(crate) number: String,
    /// The aircraft's tail number.
    pub(crate) tail: Option<String>,
    pub(crate) origin: String,
    pub(crate) destination: String,
}

/// One event that must come.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    /// Minutes of New York's time.
    minute: i64,
    pub(crate) routing_key: &'static str,
    pub(crate) flight: Arc<Flight>,
}

/// The whole day (or year), in the order in which it happened.
#[derive(Debug)]
pub(crate) struct Day {
    pub(crate) flights: usize,
    pub(crate) events: Vec<Happening>,
}

impl Day {
    pub(crate) fn read(path: &Path) -> Result<Self, BoxError> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("{}: {e}", path.display()).into())
    }

    /// The file has no quoted fields, so a comma always separates.
    fn parse(text: &str) -> Result<Self, BoxError> {
        let mut lines = text.lines();
        let columns: Vec<&str> = lines.next().ok_or("the file is empty")?.split(',').collect();
        let mut day = Self { flights: 0, events: Vec::new() };
        for (number, line) in (2..).zip(lines) {
            let row = columns.iter().copied().zip(line.split(',')).collect();
            day.add(number, &row).map_err(|e| format!("line {number}: {e}"))?;
            day.flights += 1;
        }
        // Stable, so ties stay in file order; announcing the schedule comes before everything.
        day.events.sort_by_key(|event| (event.routing_key != SCHEDULED, event.minute));
        Ok(day)
    }

    fn add(&mut self, line: u32, row: &BTreeMap<&str, &str>) -> Result<(), BoxError> {
        let text = |column| row.get(column).copied().ok_or_else(|| format!("there is no {column}"));
        let number = |column| -> Result<Option<i64>, BoxError> {
            let text = text(column)?;
            if text.is_empty() {
                return Ok(None);
            }
            Ok(Some(text.parse().map_err(|e| format!("{column} = {text:?}: {e}"))?))
        };
        let flight = Arc::new(Flight {
            id: line,
            number: format!("{} {}", text("carrier")?, text("flight")?),
            tail: Some(text("tailnum")?).filter(|tail| !tail.is_empty()).map(str::to_owned),
            origin: text("origin")?.to_owned(),
            destination: text("dest")?.to_owned(),
        });
        let mut happens =
            |minute, routing_key| self.events.push(Happening { minute, routing_key, flight: flight.clone() });
        happens(0, SCHEDULED);
        let required = |column| number(column)?.ok_or_else(|| BoxError::from(format!("{column} is empty")));
        let day = days(required("year")?, required("month")?, required("day")?);
        let scheduled = required("sched_dep_time")?;
        let scheduled = day * 24 * 60 + scheduled / 100 * 60 + scheduled % 100;
        let Some(delay) = number("dep_delay")? else {
            happens(scheduled, CANCELLED);
            return Ok(());
        };
        let departed = scheduled + delay;
        happens(departed, DEPARTED);
        match number("arr_delay")? {
            Some(_) => happens(departed + required("air_time")?, ARRIVED),
            None => happens(departed + DIVERTED_AFTER, DIVERTED),
        }
        Ok(())
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Happening) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    pub(crate) fn aircraft(&self) -> usize {
        self.events.iter().filter_map(|event| event.flight.tail.as_ref()).collect::<BTreeSet<_>>().len()
    }
}

/// Days of the calendar since some day, so that dates can be compared.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Counted from March on, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day
}

impl Happening {
    /// Passengers are told about these.
    pub(crate) fn is_news(&self) -> bool {
        [CANCELLED, DIVERTED].contains(&self.routing_key)
    }

    pub(crate) fn has_no_tail(&self) -> bool {
        self.flight.tail.is_none()
    }
}

#[cfg(test)]
pub(crate) fn the_day() -> Day {
    Day::parse(include_str!("../data/flights-2013-02-08.csv")).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of `data/README.md`.
    #[test]
    fn the_file_says_what_its_note_says() {
        let day = the_day();
        assert_eq!((day.flights, day.events.len(), day.aircraft()), (930, 2318, 574));
        assert_eq!(KINDS.map(|kind| day.count(|e| e.routing_key == kind)), [930, 458, 455, 472, 3]);
        assert_eq!((day.count(Happening::is_news), day.count(Happening::has_no_tail)), (475, 322));
        let diverted: Vec<_> = day.events.iter().filter(|e| e.routing_key == DIVERTED).collect();
        let mut diverted: Vec<_> = diverted.iter().map(|e| e.flight.number.as_str()).collect();
        diverted.sort_unstable();
        assert_eq!(diverted, ["EV 4099", "US 2122", "WN 1558"]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let error = Day::parse("carrier,flight\nUA,1").unwrap_err().to_string();
        assert_eq!(error, "line 2: there is no tailnum");
    }

    #[test]
    fn days_follow_each_other() {
        assert_eq!(days(2013, 3, 1) - days(2013, 2, 28), 1);
        assert_eq!(days(2012, 3, 1) - days(2012, 2, 28), 2);
        assert_eq!(days(2014, 1, 1) - days(2013, 1, 1), 365);
    }
}
