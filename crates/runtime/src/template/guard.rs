//! Keeps strangers' texts from becoming special tokens on their way through a template.
//!
//! Before the template runs, every marker (the text of a special token) inside a message is broken
//! by a noncharacter, U+FDD0, which Unicode keeps for such uses inside a program. The template moves
//! it around like any letter. Afterwards the noncharacters are taken out again, and the markers that
//! they broke become parts of the prompt in which markers are plain letters.
//!
//! So a conversation without markers is rendered and tokenized exactly as its maker's tools do it,
//! and in one with markers nothing else changes.

use althing_exact::PromptPart;
use std::collections::BTreeSet;

/// What breaks a marker; a message's own are replaced by U+FFFD.
const BREAK: char = '\u{fdd0}';

/// Most markers; the vocabularies with the most have about 1,000.
const MARKERS_MAX: usize = 1 << 14;

/// Longest marker, bytes. Each length is looked for at each letter of a message.
const MARKER_BYTES_MAX: usize = 256;

/// The texts of a tokenizer's special tokens.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    markers: BTreeSet<String>,
    /// Their lengths in bytes, longest first.
    lengths: Vec<usize>,
}

impl Guard {
    pub(super) fn new(markers: &[String]) -> Result<Self, String> {
        if markers.len() > MARKERS_MAX {
            return Err(format!("{} special tokens, at most {MARKERS_MAX}", markers.len()));
        }
        // One letter cannot be broken: every text with that letter would have to be.
        if let Some(marker) = markers.iter().find(|marker| marker.chars().count() < 2 || marker.contains(BREAK)) {
            return Err(format!("the special token {marker:?} cannot be told from plain text"));
        }
        if let Some(marker) = markers.iter().find(|marker| marker.len() > MARKER_BYTES_MAX) {
            return Err(format!("a special token has {} bytes, at most {MARKER_BYTES_MAX}", marker.len()));
        }
        let lengths: BTreeSet<usize> = markers.iter().map(String::len).collect();
        Ok(Self { markers: markers.iter().cloned().collect(), lengths: lengths.into_iter().rev().collect() })
    }

    /// The markers that start at this byte of a text, longest first.
    fn markers_at<'a>(&'a self, text: &'a str, at: usize) -> impl Iterator<Item = &'a str> {
        let texts = self.lengths.iter().filter_map(move |length| text.get(at..at + length));
        texts.filter_map(|text| self.markers.get(text).map(String::as_str))
    }

    /// The message with its markers broken; with `edges`, also what might be one end of a marker.
    pub(super) fn break_markers(&self, message: &str, edges: bool) -> String {
        let message = message.replace(BREAK, "\u{fffd}");
        let mut breaks: Vec<usize> = Vec::new();
        for (at, first) in message.char_indices() {
            if self.markers_at(&message, at).next().is_some() {
                breaks.push(at + first.len_utf8());
            }
        }
        if edges {
            self.edges(&message, &mut breaks);
        }
        breaks.sort_unstable();
        breaks.dedup();
        let (mut broken, mut from) = (String::with_capacity(message.len() + 3 * breaks.len()), 0);
        for at in breaks {
            broken.push_str(&message[from..at]);
            broken.push(BREAK);
            from = at;
        }
        broken.push_str(&message[from..]);
        broken
    }

    /// Whether the message begins or ends with a part of a marker, or lies within one.
    pub(super) fn has_edge(&self, message: &str) -> bool {
        let mut breaks = Vec::new();
        self.edges(message, &mut breaks);
        !breaks.is_empty()
    }

    /// Where to break the message so that no marker can reach over its ends. Templates often trim
    /// messages, so the ends are those with and without the space around.
    fn edges(&self, message: &str, breaks: &mut Vec<usize>) {
        let start = message.len() - message.trim_start().len();
        let end = message.trim_end().len();
        for (start, end) in [(0, message.len()), (start.min(end), end)] {
            let text = &message[start..end];
            let Some(first) = text.chars().next() else { continue };
            for marker in &self.markers {
                let cuts = || marker.char_indices().map(|(at, _)| at).skip(1);
                if cuts().any(|at| text.starts_with(&marker[at..])) {
                    breaks.push(start);
                }
                for at in cuts().filter(|at| text.ends_with(&marker[..*at])) {
                    let letter = marker.chars().next().map_or(0, char::len_utf8);
                    breaks.push(end - at + letter);
                }
                if text.len() < marker.len() && marker.contains(text) {
                    breaks.push(start + first.len_utf8());
                    breaks.push(start);
                }
            }
        }
    }

    /// Takes the breaks out of a rendered text; the markers over them become plain text.
    pub(super) fn parts(&self, rendered: &str) -> Vec<PromptPart> {
        let mut text = String::with_capacity(rendered.len());
        let mut breaks = Vec::new();
        for char in rendered.chars() {
            match char {
                BREAK => breaks.push(text.len()),
                char => text.push(char),
            }
        }
        let mut plain: Vec<(usize, usize)> = Vec::new();
        // The longest marker at a place reaches over a break if any does.
        let mut next = 0;
        for start in 0..text.len() {
            while next < breaks.len() && breaks[next] <= start {
                next += 1;
            }
            let Some(at) = breaks.get(next) else { break };
            let end = self.markers_at(&text, start).next().map(|marker| start + marker.len());
            plain.extend(end.filter(|end| end > at).map(|end| (start, end)));
        }
        let (mut parts, mut from) = (Vec::new(), 0);
        let mut push = |part: fn(String) -> PromptPart, text: &str| {
            if !text.is_empty() {
                parts.push(part(text.to_owned()));
            }
        };
        let mut plain = plain.into_iter().peekable();
        while let Some((start, mut end)) = plain.next() {
            while let Some((_, further)) = plain.next_if(|(next, _)| *next <= end) {
                end = end.max(further);
            }
            push(PromptPart::Markers, &text[from..start]);
            push(PromptPart::Text, &text[start..end]);
            from = end;
        }
        push(PromptPart::Markers, &text[from..]);
        parts
    }

    /// The markers that a prompt's tokens will hold, in order: the first of each place, the longest
    /// of those that start there.
    pub(super) fn markers_in<'a>(&'a self, parts: &'a [PromptPart]) -> Vec<&'a str> {
        let mut found = Vec::new();
        for part in parts {
            let PromptPart::Markers(text) = part else { continue };
            let mut at = 0;
            while at < text.len() {
                let here = self.markers_at(text, at).next();
                found.extend(here);
                let step = text[at..].chars().next().map_or(1, char::len_utf8);
                at += here.map_or(step, str::len);
            }
        }
        found
    }
}
