//! Durations and times as people write them.

use std::time::Duration;

use tidings::Timestamp;

const DAY: i64 = 86_400;

/// Reads `250ms`, `10s`, `1.5m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let seconds_each = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "" => return Err("a number alone has no unit: write 10s, 250ms, 5m, 2h or 1d".to_owned()),
        _ => return Err(format!("{unit:?} is no unit: write 10s, 250ms, 5m, 2h or 1d")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * seconds_each).map_err(|_| "longer than can be counted".to_owned())
}

/// Reads `2026-11-21T10:00:00Z` (with a fraction or an offset, if wanted), `2026-11-21`, or a duration: so long ago.
pub(crate) fn past(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(micros)));
    }
    instant(text)
}

/// Reads `2026-11-21T10:00:00Z` and the like.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    rfc3339(text).ok_or_else(|| format!("{text:?} is no time: write 2026-11-21T10:00:00Z"))
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00Z"));
    let [year, month, day] = numbers(date, '-')?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !valid || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let [hours, minutes] = numbers(zone.get(1..)?, ':')?;
            (hours * 3600 + minutes * 60) * if zone.starts_with('-') { -1 } else { 1 }
        }
    };
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?.checked_add(micros)?))
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    text.split(separator).map(digits).collect::<Option<Vec<i64>>>()?.try_into().ok()
}

/// Days from the Unix epoch to a date of the Gregorian calendar (Howard Hinnant's algorithm).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `2026-11-21T10:00:00Z`, to the second.
pub(crate) fn show(time: Timestamp) -> String {
    let seconds = time.as_micros().div_euclid(1_000_000);
    let (day, of_day) = (seconds.div_euclid(DAY) + 719_468, seconds.rem_euclid(DAY));
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, day) = ((shifted + 2) % 12 + 1, of_year - (153 * shifted + 2) / 5 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `3d 4h`, `12m 5s`, `8s`, `120ms`: the two largest units.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `1,234,567`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["10", "", "s", "10 s", "-1s", "1e3s", "9999999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_and_shown() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2013-02-08T01:00:00+00:00", 1_360_285_200),
            ("2013-02-08T02:30:00+01:30", 1_360_285_200),
            ("2024-02-29T23:59:59Z", 1_709_251_199),
            ("1969-12-31", -86_400),
        ] {
            let time = instant(text).unwrap();
            assert_eq!(time.as_micros(), seconds * 1_000_000, "{text}");
            assert_eq!(instant(&show(time)), Ok(time), "{text}");
        }
        assert_eq!(show(Timestamp::from_micros(1_360_285_200_999_999)), "2013-02-08T01:00:00Z");
        for wrong in
            ["yesterday", "2013-13-01", "2013-02-08T25:00:00Z", "2013-02-08T01:00:00", "2013-02-08T01:00:00.xZ"]
        {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(span(Duration::from_secs(90_061)), "1d 1h");
        assert_eq!(span(Duration::from_millis(120)), "120ms");
    }
}
