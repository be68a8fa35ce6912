//! Times as ISO 8601 texts, in UTC (the days are counted as in RFC 3339's proleptic Gregorian calendar).

use serde_json::Value;

use crate::{Error, ErrorKind, Result, Timestamp};

const DAY: i64 = 86_400_000_000;

/// `2026-11-21T12:00:00.000Z`, milliseconds.
pub(super) fn iso(time: Timestamp) -> String {
    let micros = time.as_micros();
    let (days, of_day) = (micros.div_euclid(DAY), micros.rem_euclid(DAY) / 1000);
    // Counted from 1 March of the year 0, so that leap days end a year; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, millis) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// A time as callers give it: milliseconds since the Unix epoch, or a date with or without a time of day.
pub(super) fn parse(value: &Value, field: &'static str) -> Result<Timestamp> {
    let found = match value {
        Value::Number(number) => number.as_f64().and_then(|millis| Timestamp::from_secs_f64(millis / 1000.0)),
        Value::String(text) => parse_text(text),
        _ => None,
    };
    found.ok_or_else(|| {
        Error::new(ErrorKind::InvalidOption, "this is not a time")
            .field(field, value)
            .remedy("give milliseconds since the Unix epoch, or a text like 2026-11-21T12:00:00Z")
    })
}

fn parse_text(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let number = |text: &str, range: std::ops::RangeInclusive<i64>| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && range.contains(number))
    };
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next().filter(|year| year.len() == 4)?, 0..=9999)?;
    let month = number(parts.next().filter(|month| month.len() == 2)?, 1..=12)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = number(parts.next().filter(|day| day.len() == 2)?, 1..=last)?;
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468;
    let micros = if rest.is_empty() { 0 } else { time_of_day(rest.strip_prefix(['T', 't', ' '])?, &number)? };
    Some(Timestamp::from_micros(days * DAY + micros))
}

/// `12:00`, `12:00:00`, `12:00:00.123456`, each with `Z` or an offset behind it; without one it is UTC.
fn time_of_day(text: &str, number: &impl Fn(&str, std::ops::RangeInclusive<i64>) -> Option<i64>) -> Option<i64> {
    let clock = |text: &str| {
        let (hours, minutes) =
            text.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
        Some(number(hours, 0..=23)? * 3600 + number(minutes, 0..=59)? * 60)
    };
    let (text, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(text) => (text, 0),
        None => match text.rfind(['+', '-']) {
            Some(at) => (&text[..at], clock(&text[at + 1..])? * if text[at..].starts_with('-') { -1 } else { 1 }),
            None => (text, 0),
        },
    };
    let (hours_minutes, rest) = text.split_at_checked(5)?;
    let mut micros = (clock(hours_minutes)? - offset) * 1_000_000;
    if let Some(rest) = rest.strip_prefix(':') {
        let (seconds, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
        micros += number(Some(seconds).filter(|seconds| seconds.len() == 2)?, 0..=59)? * 1_000_000;
        let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
        micros += number(&six, 0..=999_999).filter(|_| !fraction.is_empty())?;
    } else if !rest.is_empty() {
        return None;
    }
    Some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999_000),
            ("2013-02-08T05:15:00.000Z", 1_360_300_500_000_000),
            ("1969-12-31T23:59:59.000Z", -1_000_000),
        ] {
            assert_eq!(iso(Timestamp::from_micros(micros)), text);
            assert_eq!(parse_text(text).unwrap().as_micros(), micros);
        }
        for (text, same) in [
            ("2013-02-08", "2013-02-08T00:00:00.000Z"),
            ("2013-02-08 06:15", "2013-02-08T06:15:00.000Z"),
            ("2013-02-08T06:15:00+01:00", "2013-02-08T05:15:00.000Z"),
            ("2013-02-08T00:15:00.5-05:00", "2013-02-08T05:15:00.500Z"),
        ] {
            assert_eq!(iso(parse_text(text).unwrap()), same);
        }
        for bad in [
            "",
            "2013",
            "2013-02-30",
            "2013-2-8",
            "2013-02-08T25:00",
            "2013-02-08T06:15:00.Z",
            "2013-02-08x",
            "+013-02-08",
            "now",
        ] {
            assert!(parse_text(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(millis in -62_135_596_800_000_i64..253_402_300_800_000) {
            let time = Timestamp::from_micros(millis * 1000);
            prop_assert_eq!(parse_text(&iso(time)), Some(time));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}|[0-9T:.Z+-]{0,30}") {
            let _any = parse_text(&text);
        }
    }
}
