//! Values made of bytes, so that every change of a byte is another value.

use crate::{HeaderValue, Headers};

/// What is left of the bytes. Without any, everything is zero.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn slice(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (slice, rest) = self.0.split_at(length);
        self.0 = rest;
        slice
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.slice()).into_owned()
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    pub(super) fn headers(&mut self, depth: u8) -> Headers {
        let mut headers = Headers::new();
        for _ in 0..self.byte() % 8 {
            headers.set(self.text(), self.value(depth));
        }
        headers
    }

    fn value(&mut self, depth: u8) -> HeaderValue {
        match self.byte() % 9 {
            1 => HeaderValue::Bool(self.byte() % 2 == 1),
            2 => HeaderValue::Int(self.number().cast_signed()),
            3 => HeaderValue::Float(f64::from_bits(self.number())),
            4 => HeaderValue::Text(self.text().into()),
            5 => HeaderValue::Bytes(self.slice().to_vec()),
            6 => HeaderValue::Time(self.number()),
            7 if depth > 0 => HeaderValue::List((0..self.byte() % 8).map(|_| self.value(depth - 1)).collect()),
            8 if depth > 0 => HeaderValue::Table(self.headers(depth - 1)),
            _ => HeaderValue::Null,
        }
    }
}
