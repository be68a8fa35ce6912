//! Canonical JSON (RFC 8785), so that equal messages have equal digests whatever language wrote them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{Error, ErrorKind, Result};

/// The canonical form of `json`: no white space, keys in the order of their UTF-16, numbers as ECMAScript writes them.
///
/// One departure: integers keep all their digits, where RFC 8785 would round beyond 2^53 and make different ids equal.
pub(super) fn canonical(json: &str) -> Result<String> {
    let mut out = String::with_capacity(json.len());
    write(json.trim(), &mut out)?;
    Ok(out)
}

fn parse<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| {
        Error::new(ErrorKind::InvalidEvent, format!("the message is not JSON: {e}"))
            .field("message", format!("{} bytes", json.len()))
            .remedy("JSON has no NaN, no Infinity and no trailing commas")
    })
}

fn write(json: &str, out: &mut String) -> Result<()> {
    match json.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = parse(json)?;
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (at, (key, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&text(&key)?);
                out.push(':');
                write(value.get().trim(), out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = parse(json)?;
            out.push('[');
            for (at, item) in items.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item.get().trim(), out)?;
            }
            out.push(']');
        }
        Some(b'"') => out.push_str(&text(&parse::<String>(json)?)?),
        Some(b'-' | b'0'..=b'9') => number(json, out)?,
        _ => {
            parse::<serde_json::Value>(json)?;
            out.push_str(json);
        }
    }
    Ok(())
}

fn text(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|e| Error::new(ErrorKind::Internal, "a string has no JSON form").source(e))
}

fn number(json: &str, out: &mut String) -> Result<()> {
    parse::<&RawValue>(json)?;
    if !json.contains(['.', 'e', 'E']) {
        out.push_str(if json == "-0" { "0" } else { json });
        return Ok(());
    }
    // The nearest double, which serde_json does not promise.
    match json.parse::<f64>() {
        Ok(number) if number.is_finite() => out.push_str(&ecmascript(number)),
        // Too large for a double: what was written is the only form it has.
        _ => out.push_str(json),
    }
    Ok(())
}

/// `Number::toString` of ECMAScript: the shortest digits that read back as the same number, in its layout.
fn ecmascript(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let body = if (count..=21).contains(&point) {
        format!("{digits}{}", zeros(point - count))
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        format!("{whole}.{fraction}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let fraction = if rest.is_empty() { String::new() } else { format!(".{rest}") };
        format!("{first}{fraction}e{:+}", point - 1)
    };
    format!("{sign}{body}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_rfc() {
        let json = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = concat!(
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        assert_eq!(canonical(json).unwrap(), expected);
    }

    #[test]
    fn keys_sort_by_utf16() {
        // U+1F600 comes before U+FB33 in UTF-16, behind it in UTF-8.
        let json = "{\"\u{fb33}\":1,\"\u{1f600}\":2,\"1\":3,\"\u{f6}\":4}";
        assert_eq!(canonical(json).unwrap(), "{\"1\":3,\"\u{f6}\":4,\"\u{1f600}\":2,\"\u{fb33}\":1}");
    }

    #[test]
    fn numbers() {
        for (json, expected) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1e21", "1e+21"),
            ("1.0e20", "100000000000000000000"),
            ("1e-6", "0.000001"),
            ("1e-7", "1e-7"),
            ("123456.789", "123456.789"),
            ("9007199254740993", "9007199254740993"),
            ("5e-324", "5e-324"),
            ("-1.5e300", "-1.5e+300"),
        ] {
            assert_eq!(canonical(json).unwrap(), expected, "{json}");
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_filter("JSON has it", |f| f.is_finite()).prop_map(Into::into),
            "\\PC{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map("\\PC{0,4}", inner, 0..5)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_a_fixed_point_and_means_the_same(value in value()) {
            let once = canonical(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
            prop_assert_eq!(&canonical(&once).unwrap(), &once);
            prop_assert_eq!(&canonical(&value.to_string()).unwrap(), &once);
        }

        #[test]
        fn numbers_read_back(number in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            prop_assert_eq!(ecmascript(number).parse::<f64>().unwrap().to_bits(), (number + 0.0).to_bits());
        }

        #[test]
        fn any_text_is_refused_or_written(text in "\\PC{0,40}") {
            let valid = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(canonical(&text).is_ok(), valid);
        }
    }
}
