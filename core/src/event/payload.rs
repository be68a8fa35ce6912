//! [`Payload`]: bytes that many may hold.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The bytes of a body. Immutable; cheap to clone, and a part of it is no copy.
///
/// It is a `[u8]` wherever one is wanted, and made from whatever owns bytes or text.
///
/// ```
/// use tidings::event::Payload;
///
/// let payload = Payload::from(vec![b'{', b'}']);
/// assert_eq!(payload, "{}");
/// assert_eq!(payload.len(), 2);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Payload(Bytes);

impl Payload {
    /// No bytes.
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// Bytes of the program itself, which nobody has to own.
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }

    /// A copy of `bytes`.
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// `part`, which must lie within this payload, sharing its memory.
    pub(crate) fn part(&self, part: &[u8]) -> Self {
        Self(self.0.slice_ref(part))
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from_static(bytes)
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

impl From<Payload> for Vec<u8> {
    /// Without a copy where nobody else holds the bytes.
    fn from(payload: Payload) -> Self {
        payload.0.into()
    }
}

impl PartialEq<[u8]> for Payload {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<str> for Payload {
    fn eq(&self, other: &str) -> bool {
        **self == *other.as_bytes()
    }
}

impl<T: ?Sized> PartialEq<&T> for Payload
where
    Self: PartialEq<T>,
{
    fn eq(&self, other: &&T) -> bool {
        self == *other
    }
}

impl fmt::Debug for Payload {
    /// The length alone: bodies may hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_shares_the_memory() {
        let whole = Payload::from("hello world".to_owned());
        let part = whole.part(&whole[6..]);
        assert_eq!(part, "world");
        assert_eq!(part.as_ptr(), whole[6..].as_ptr());
    }

    #[test]
    fn what_nobody_shares_is_given_back_without_a_copy() {
        let bytes = b"{}".to_vec();
        let at = bytes.as_ptr();
        let back = Vec::from(Payload::from(bytes));
        assert_eq!(back.as_ptr(), at);
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(format!("{:?}", Payload::from("secret")), "Payload(6 bytes)");
    }
}
