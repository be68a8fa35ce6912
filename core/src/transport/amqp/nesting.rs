//! Keeps lists and tables that lie too deep within each other from the client library, whose parser recurses without a
//! limit: whoever may publish could end the process.
//!
//! The bytes that the server sends are looked at on their way in. A list, a table and a byte array are written alike (a
//! letter, a length, the content), so the letter is all that has to change: what lies too deep arrives as bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};

/// Lists and tables within each other that are let through: more than the headers of an event keep.
const MAX_LEVELS: usize = 32;

/// Frames with properties; the type is a frame's first byte.
const HEADER_FRAME: u8 = 2;
/// Type, channel and length of a frame.
const FRAME_START: usize = 7;
/// Class, weight, size of the body and flags, before the properties themselves.
const PROPERTIES_START: usize = 14;
/// Flags of the properties that come first: content type, content encoding, headers.
const CONTENT_TYPE: u8 = 0x80;
const CONTENT_ENCODING: u8 = 0x40;
const HEADERS: u8 = 0x20;

/// A stream from an AMQP server.
pub(super) struct Guarded<S> {
    stream: S,
    nesting: Nesting,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, nesting: Nesting::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.nesting.limit(&mut buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_read_vectored(cx, bufs))?;
        let mut left = count;
        for buf in bufs {
            let here = left.min(buf.len());
            self.nesting.limit(&mut buf[..here]);
            left -= here;
        }
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default)]
enum Next {
    #[default]
    Frame,
    Properties,
    /// A short string before the headers; so many more after it.
    Before(u8),
    /// The length of a table's or list's content. A list has no names.
    Content {
        named: bool,
    },
    /// The length of a value's bytes.
    Bytes,
    Name,
    Value,
}

/// A list or table that has begun.
#[derive(Debug)]
struct Level {
    /// Bytes of the frame that are left behind it.
    end: usize,
    named: bool,
}

/// Where in the stream of frames it is.
#[derive(Debug, Default)]
struct Nesting {
    next: Next,
    /// Bytes until then.
    skip: usize,
    /// The start of what comes next, where the bytes read so far ended within it.
    field: [u8; PROPERTIES_START],
    have: usize,
    /// Bytes of the frame from `next` on, without those in `field`.
    frame: usize,
    levels: Vec<Level>,
}

impl Nesting {
    /// Goes over the next bytes of the stream, and takes the nesting out of what is nested too deeply.
    fn limit(&mut self, mut bytes: &mut [u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            bytes = &mut bytes[skipped..];
            self.skip -= skipped;
            if bytes.is_empty() {
                return;
            }
            let wanted = self.wanted();
            let taken = (wanted - self.have).min(bytes.len());
            let (field, rest) = bytes.split_at_mut(taken);
            if let Next::Value = self.next
                && self.levels.len() >= MAX_LEVELS
                && matches!(field[0], b'A' | b'F')
            {
                field[0] = b'x';
            }
            self.field[self.have..self.have + taken].copy_from_slice(field);
            self.have += taken;
            bytes = rest;
            if self.have == wanted {
                self.have = 0;
                if self.step(wanted).is_none() {
                    // It ends early or is no AMQP: for the library to refuse, which does not look further either.
                    self.leave_frame();
                }
            }
        }
    }

    /// Bytes that must be known of what comes next.
    fn wanted(&self) -> usize {
        match self.next {
            Next::Frame => FRAME_START,
            Next::Properties => PROPERTIES_START,
            Next::Content { .. } | Next::Bytes => 4,
            Next::Before(_) | Next::Name | Next::Value => 1,
        }
    }

    /// Acts on what has come. `None` where the frame makes no sense.
    fn step(&mut self, wanted: usize) -> Option<()> {
        if let Next::Frame = self.next {
            self.frame = self.number(3);
            match self.field[0] {
                HEADER_FRAME => self.next = Next::Properties,
                _ => self.leave_frame(),
            }
            return Some(());
        }
        self.frame = self.frame.checked_sub(wanted)?;
        match self.next {
            Next::Properties => {
                let flags = self.field[PROPERTIES_START - 2];
                if flags & HEADERS == 0 {
                    self.leave_frame();
                } else {
                    let before = u8::from(flags & CONTENT_TYPE != 0) + u8::from(flags & CONTENT_ENCODING != 0);
                    self.before_headers(before);
                }
            }
            Next::Before(more) => {
                self.pass(self.field[0].into())?;
                self.before_headers(more);
            }
            Next::Content { named } => {
                let end = self.frame.checked_sub(self.number(0)).filter(|end| *end >= self.end())?;
                self.levels.push(Level { end, named });
                self.next_value();
            }
            Next::Bytes => {
                self.pass(self.number(0))?;
                self.next_value();
            }
            Next::Name => {
                self.pass(self.field[0].into())?;
                self.next = Next::Value;
            }
            Next::Value => self.value(self.field[0])?,
            Next::Frame => {}
        }
        Some(())
    }

    fn before_headers(&mut self, short_strings: u8) {
        self.next = match short_strings.checked_sub(1) {
            Some(more) => Next::Before(more),
            None => Next::Content { named: true },
        };
    }

    /// A value of the type with this letter begins.
    fn value(&mut self, letter: u8) -> Option<()> {
        let size = match letter {
            b'A' | b'F' => {
                self.next = Next::Content { named: letter == b'F' };
                return Some(());
            }
            b'S' | b'x' => {
                self.next = Next::Bytes;
                return Some(());
            }
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            _ => return None,
        };
        self.pass(size)?;
        self.next_value();
        Some(())
    }

    /// After a value or at the start of a list or table: its next value, or whatever comes behind it.
    fn next_value(&mut self) {
        while self.levels.pop_if(|level| level.end == self.frame).is_some() {}
        match self.levels.last() {
            Some(level) => self.next = if level.named { Next::Name } else { Next::Value },
            None => self.leave_frame(),
        }
    }

    /// Passes over bytes of the innermost list or table.
    fn pass(&mut self, bytes: usize) -> Option<()> {
        let left = self.frame.checked_sub(bytes).filter(|left| *left >= self.end())?;
        (self.frame, self.skip) = (left, bytes);
        Some(())
    }

    /// Bytes of the frame behind the innermost list or table.
    fn end(&self) -> usize {
        self.levels.last().map_or(0, |level| level.end)
    }

    /// Passes over the rest of the frame and the byte that ends it.
    fn leave_frame(&mut self) {
        self.levels.clear();
        self.skip = self.skip.saturating_add(self.frame).saturating_add(1);
        self.next = Next::Frame;
    }

    /// The four bytes from `at` on.
    fn number(&self, at: usize) -> usize {
        let [.., a, b, c, d] = self.field[..at + 4] else { return 0 };
        u32::from_be_bytes([a, b, c, d]).try_into().unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(0xce);
        frame
    }

    fn sized(letter: u8, content: &[u8]) -> Vec<u8> {
        let mut value = vec![letter];
        value.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
        value.extend(content);
        value
    }

    /// A header frame with these headers, a content type before them and a delivery mode behind them.
    fn header_frame(headers: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut table = Vec::new();
        for (name, value) in headers {
            table.push(u8::try_from(name.len()).unwrap());
            table.extend(name.as_bytes());
            table.extend(value);
        }
        let mut payload = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2].to_vec();
        payload.extend([0x80 | 0x20 | 0x10, 0, 4]);
        payload.extend(b"json");
        payload.extend(&sized(0, &table)[1..]);
        payload.push(2);
        frame(HEADER_FRAME, &payload)
    }

    /// `levels` lists or tables within each other, and a flag in the innermost.
    fn nested(levels: usize, letter: impl Fn(usize) -> u8) -> Vec<u8> {
        (0..levels).rev().fold(b"t\x01".to_vec(), |inner, level| match letter(level) {
            b'F' => sized(b'F', &[b"\x01n".to_vec(), inner].concat()),
            list => sized(list, &inner),
        })
    }

    fn limited(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut nesting, mut bytes) = (Nesting::default(), bytes.to_vec());
        let mut rest = bytes.as_mut_slice();
        for cut in cuts {
            let (now, later) = rest.split_at_mut((*cut).min(rest.len()));
            nesting.limit(now);
            rest = later;
        }
        nesting.limit(rest);
        bytes
    }

    #[test]
    fn what_lies_too_deep_becomes_bytes() {
        let kinds: [fn(usize) -> bool; 3] = [|_| true, |_| false, |level| level % 2 == 0];
        for is_table in kinds {
            // The headers themselves are the first level.
            let stream = |bytes_at: Option<usize>| {
                let value = (1..500).rev().fold(b"t\x01".to_vec(), |inner, level| {
                    let content = if is_table(level) { [b"\x01n".to_vec(), inner].concat() } else { inner };
                    let letter = if is_table(level) { b'F' } else { b'A' };
                    sized(if bytes_at == Some(level) { b'x' } else { letter }, &content)
                });
                let headers = header_frame(&[("deep", value), ("after", b"I\0\0\0\x07".to_vec())]);
                // What follows is looked at just as well.
                [frame(1, b"method"), headers.clone(), frame(3, b"{}"), headers].concat()
            };
            // Not `assert_eq`: nobody reads thousands of bytes.
            assert!(limited(&stream(None), &[]) == stream(Some(MAX_LEVELS)));
        }
    }

    #[test]
    fn what_is_allowed_stays() {
        let values = [
            b"V".to_vec(),
            b"t\x01".to_vec(),
            b"bA".to_vec(),
            b"sAA".to_vec(),
            b"IAAAA".to_vec(),
            b"DAAAAA".to_vec(),
            b"lFFFFFFFF".to_vec(),
            sized(b'S', b"AFAF"),
            sized(b'x', &[b'A'; 300]),
            sized(b'A', b""),
            sized(b'F', b""),
            sized(b'A', &[b"V".to_vec(), sized(b'F', b"\x00V"), sized(b'S', b"")].concat()),
            nested(MAX_LEVELS - 1, |_| b'F'),
        ];
        let headers: Vec<_> = values.into_iter().map(|value| ("name", value)).collect();
        let stream = [header_frame(&headers), header_frame(&[]), frame(8, b""), header_frame(&headers)].concat();
        assert_eq!(limited(&stream, &[]), stream);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            depths in prop::collection::vec(0..80usize, 0..6),
            tables in any::<u64>(),
            cuts in prop::collection::vec(1..40usize, 0..60),
        ) {
            let letter = |level: usize| if tables >> (level % 64) & 1 == 1 { b'F' } else { b'A' };
            let headers: Vec<_> = depths.iter().map(|depth| ("n", nested(*depth, letter))).collect();
            let stream = [header_frame(&headers), frame(3, b"body"), header_frame(&headers)].concat();
            let whole = limited(&stream, &[]);
            let changed = whole.iter().zip(&stream).filter(|(after, before)| after != before).count();
            prop_assert_eq!(changed, 2 * depths.iter().filter(|depth| **depth >= MAX_LEVELS).count());
            prop_assert_eq!(limited(&stream, &cuts), whole);
        }

        #[test]
        fn nonsense_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1..40usize) {
            let stream = [frame(HEADER_FRAME, &bytes), bytes].concat();
            prop_assert_eq!(limited(&stream, &[cut]), limited(&stream, &[]));
        }
    }
}
