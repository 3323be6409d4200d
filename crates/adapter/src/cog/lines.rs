//! A stream of events cut into its lines, in time that grows with its length however it comes: the parser of events
//! looks at all that it has from the start again with every piece, and copies it with every line. Nor does it get over
//! bytes that are no text, or a mark of byte order.

use bytes::Bytes;

/// Bytes on their way into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// What came and was not given out yet.
    rest: Bytes,
    /// The line that is not over yet, before `rest`.
    begun: Vec<u8>,
    /// Whether a line was given out.
    is_begun: bool,
}

/// A line is no text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotText;

impl Lines {
    /// Takes what came next, once [`Self::next`] gives nothing any more.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.rest.is_empty(), "nothing is lost");
        self.rest = piece;
    }

    /// The next whole line with its end. Lines end with `\n`, `\r\n` or `\r`; where a piece ends with `\r`, the line is
    /// over when it is known whether `\n` follows.
    pub(crate) fn next(&mut self) -> Option<Result<String, NotText>> {
        if self.begun.ends_with(b"\r") && self.rest.first().is_some_and(|byte| *byte != b'\n') {
            return Some(self.line());
        }
        let end = self.rest.iter().enumerate().find_map(|(index, byte)| match byte {
            b'\n' => Some(index + 1),
            b'\r' if self.rest.get(index + 1).is_some_and(|next| *next != b'\n') => Some(index + 1),
            _ => None,
        });
        let line = self.rest.split_to(end.unwrap_or(self.rest.len()));
        self.begun.extend_from_slice(&line);
        end.map(|_| self.line())
    }

    /// What is left at the end of the stream: a line that nobody ended, or nothing.
    pub(crate) fn finish(&mut self) -> Option<Result<String, NotText>> {
        (!self.begun.is_empty()).then(|| self.line())
    }

    fn line(&mut self) -> Result<String, NotText> {
        let line = String::from_utf8(std::mem::take(&mut self.begun)).map_err(|_| NotText)?;
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        Ok(if is_first { line.trim_start_matches('\u{feff}').to_owned() } else { line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_a_stream_is_cut() {
        let stream = "\u{feff}\u{feff}event: \u{feff}é\ndata: b\r\ndata: c\rdata: d\r\r\n\n\r\rend".as_bytes();
        let lines = ["event: \u{feff}é\n", "data: b\r\n", "data: c\r", "data: d\r", "\r\n", "\n", "\r", "\r", "end"];
        let expected = lines.map(|line| Ok(line.to_owned()));
        for size in 1..=stream.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in stream.chunks(size) {
                lines.push(Bytes::copy_from_slice(piece));
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            found.extend(lines.finish());
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_that_is_no_text_is_told_at_once() {
        let mut lines = Lines::default();
        lines.push(Bytes::from_static(b"data: \xff\n\n"));
        assert_eq!([lines.next(), lines.next(), lines.next()], [Some(Err(NotText)), Some(Ok("\n".into())), None]);
    }
}
