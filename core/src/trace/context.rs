//! [`TraceContext`]: the header `traceparent`.

use std::fmt;
use std::str::FromStr;

use crate::event::{Headers, name};

/// Where an event is within a trace, as W3C Trace Context (level 1 and 2) writes it.
///
/// ```
/// use tidings::TraceContext;
///
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let context: TraceContext = header.parse()?;
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), header);
/// # Ok::<(), tidings::trace::TraceContextError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContextError;

impl fmt::Display for TraceContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case, ids not zero")
    }
}

impl std::error::Error for TraceContextError {}

const SAMPLED: u8 = 1;
/// `00-` + 32 + `-` + 16 + `-` + 2.
const LENGTH: usize = 55;

impl TraceContext {
    /// A context of these ids; `None` if one of them is zero, which means that there is none.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Option<Self> {
        let valid = trace_id != [0; 16] && parent_id != [0; 8];
        valid.then_some(Self { trace_id, parent_id, flags })
    }

    /// The context that an event's headers name, if they name one and it is valid.
    pub fn of(headers: &Headers) -> Option<Self> {
        headers.text(name::TRACEPARENT)?.parse().ok()
    }

    /// The trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that sent the event.
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// All flags, those without a meaning here too: they are passed on unchanged.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the sender records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace_id);
        let parent = u64::from_be_bytes(self.parent_id);
        write!(f, "00-{trace:032x}-{parent:016x}-{:02x}", self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    /// Strict for version 00; of a later version what it has in common with 00, as the standard asks for.
    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        read(text.as_bytes()).ok_or(TraceContextError)
    }
}

fn read(text: &[u8]) -> Option<TraceContext> {
    let [version] = hex(text.get(0..2)?)?;
    let longer = text.len() > LENGTH;
    let readable = match version {
        0xff => false,
        0 => !longer,
        _ => !longer || text[LENGTH] == b'-',
    };
    if !readable || [2, 35, 52].iter().any(|at| text.get(*at) != Some(&b'-')) {
        return None;
    }
    let [flags] = hex(text.get(53..LENGTH)?)?;
    TraceContext::new(hex(text.get(3..35)?)?, hex(text.get(36..52)?)?, flags)
}

/// Bytes written as hexadecimal digits in lower case.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_later_versions_as_far_as_they_are_known() {
        let known: TraceContext = HEADER.parse().unwrap();
        for later in [HEADER.replacen("00", "cc", 1), HEADER.replacen("00", "cc", 1) + "-what.the.future.brings"] {
            assert_eq!(later.parse(), Ok(known), "{later}");
        }
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        for text in [
            String::new(),
            HEADER.replacen("00", "ff", 1),
            HEADER.to_uppercase(),
            format!("{HEADER}-more"),
            format!("{HEADER} "),
            format!(" {HEADER}"),
            HEADER.replacen("00", "cc", 1) + ".more",
            HEADER.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            HEADER.replace("b7ad6b7169203331", &"0".repeat(16)),
            HEADER.replace('-', "_"),
            HEADER[..54].to_owned(),
            HEADER.replacen('f', "g", 1),
            HEADER.replacen("0a", "ä", 1),
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceContextError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_format(trace in any::<[u8; 16]>(), parent in any::<[u8; 8]>(), flags in any::<u8>()) {
            prop_assume!(trace != [0; 16] && parent != [0; 8]);
            let context = TraceContext::new(trace, parent, flags).unwrap();
            prop_assert_eq!(context.to_string().parse(), Ok(context));
            prop_assert_eq!(context.is_sampled(), flags % 2 == 1);
        }

        #[test]
        fn any_text_has_an_answer(text in any::<String>(), at in 0..LENGTH, byte in any::<char>()) {
            let _any_answer_will_do = text.parse::<TraceContext>();
            let mut changed = HEADER.to_owned();
            changed.replace_range(at..=at, &byte.to_string());
            // What is read is what was written, but for a later version's.
            if let Ok(context) = changed.parse::<TraceContext>() {
                prop_assert_eq!(&context.to_string()[2..], &changed[2..]);
            }
        }
    }
}
