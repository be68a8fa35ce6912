//! Where in a stream of AMQP 0.9.1 frames a piece ends.

/// Type, channel and length come first; one byte ends the frame.
const HEAD: usize = 7;
/// What a client says first.
const GREETING: usize = 8;

/// Follows the frames of one direction.
#[derive(Debug)]
pub(super) struct Frames {
    /// The head of the frame that has begun.
    head: Vec<u8>,
    /// What is still to come of the payload and the end of the frame, or of the greeting.
    left: usize,
}

impl Frames {
    /// At the beginning of a connection. The client's direction begins with its greeting.
    pub(super) fn new(client: bool) -> Self {
        Self { head: Vec::with_capacity(HEAD), left: if client { GREETING } else { 0 } }
    }

    /// Takes a piece; returns how much of it can be passed on so that the stream ends within a frame.
    pub(super) fn inside(&mut self, mut piece: &[u8]) -> Option<usize> {
        let whole = piece.len();
        let mut inside = None;
        while !piece.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(piece.len());
                // The last byte of a frame is not within it any more.
                if self.left > 1 {
                    inside = Some(whole - piece.len() + taken.min(self.left - 1));
                }
                self.left -= taken;
                piece = &piece[taken..];
                continue;
            }
            let taken = (HEAD - self.head.len()).min(piece.len());
            self.head.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            inside = Some(whole - piece.len());
            if self.head.len() == HEAD {
                let size = u32::from_be_bytes([self.head[3], self.head[4], self.head[5], self.head[6]]);
                self.left = size as usize + 1;
                self.head.clear();
            }
        }
        inside
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    fn frame(payload: usize) -> Vec<u8> {
        let mut frame = vec![1, 0, 1, 0, 0, 0, u8::try_from(payload).unwrap_or(u8::MAX)];
        frame.resize(7 + payload, b'x');
        frame.push(0xce);
        frame
    }

    #[test]
    fn a_stream_is_cut_within_its_last_frame() {
        let mut frames = Frames::new(true);
        assert_eq!(frames.inside(b"AMQP\0\0\x09\x01"), Some(7));
        assert_eq!(frames.inside(&frame(5)), Some(12), "all but the last byte");
        let two = [frame(3), frame(4)].concat();
        assert_eq!(frames.inside(&two), Some(two.len() - 1));
        let (first, rest) = two.split_at(3);
        assert_eq!(frames.inside(first), Some(3));
        assert_eq!(frames.inside(rest), Some(rest.len() - 1));
    }

    #[test]
    fn the_last_byte_alone_is_not_within_a_frame() {
        let mut frames = Frames::new(false);
        let whole = frame(2);
        frames.inside(&whole[..9]);
        assert_eq!(frames.inside(&whole[9..]), None);
    }
}
