//! The image and the speech interface: what such models take, as canonical JSON (see [`crate::chat`]).
//!
//! What they give is a file, with nothing around it: the output's CID is the picture's own, and whoever has it
//! can look at it. A refusal is told from a file by how it begins.

use serde::{Deserialize, Serialize};

/// Width and height where the client does not say, pixels.
pub const IMAGE_SIDE_DEFAULT: u32 = 512;

/// What an image model runs on: one picture of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInput {
    pub prompt: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
}

/// What a speech model runs on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechInput {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// `mp3`, `opus`, `aac`, `flac` or `wav`; the model's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// How fast it is spoken; 1 is the model's own speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f32>,
    /// How it is to be spoken, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

impl ImageInput {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are always JSON")
    }
}

impl SpeechInput {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and finite numbers are always JSON")
    }
}

/// The media type of a picture, by how the file begins; `None` if it is none that browsers show.
pub fn image_type(file: &[u8]) -> Option<&'static str> {
    match file {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => Some("image/avif"),
        _ => None,
    }
}

/// The media type of a sound, by how the file begins; `None` if it is none that browsers play.
pub fn audio_type(file: &[u8]) -> Option<&'static str> {
    match file {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some("audio/wav"),
        [b'f', b'L', b'a', b'C', ..] => Some("audio/flac"),
        [b'O', b'g', b'g', b'S', ..] => Some("audio/ogg"),
        // ADTS has a layer of zero, which MPEG layers have not.
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Some("audio/aac"),
        [0xff, second, ..] if second & 0xe0 == 0xe0 => Some("audio/mpeg"),
        [b'I', b'D', b'3', ..] => Some("audio/mpeg"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_how_they_begin() {
        for (file, image, audio) in [
            (&b"\x89PNG\r\n\x1a\nrest"[..], Some("image/png"), None),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg"), None),
            (b"GIF89a", Some("image/gif"), None),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp"), None),
            (b"\0\0\0\x20ftypavif", Some("image/avif"), None),
            (b"RIFF\0\0\0\0WAVEfmt ", None, Some("audio/wav")),
            (b"ID3\x04", None, Some("audio/mpeg")),
            (b"\xff\xfb\x90", None, Some("audio/mpeg")),
            (b"\xff\xf1\x50", None, Some("audio/aac")),
            (b"OggS\0", None, Some("audio/ogg")),
            (b"fLaC\0", None, Some("audio/flac")),
            (br#"{"error":{"code":"invalid_input","message":""}}"#, None, None),
            (b"", None, None),
        ] {
            assert_eq!((image_type(file), audio_type(file)), (image, audio), "{file:?}");
        }
    }

    #[test]
    fn inputs_are_canonical() {
        let image = ImageInput { prompt: "a fox".into(), width: 512, height: 256 };
        assert_eq!(image.to_bytes(), br#"{"prompt":"a fox","width":512,"height":256}"#);
        let speech = SpeechInput { text: "hi".into(), voice: None, format: None, speed: Some(1.5), instructions: None };
        assert_eq!(speech.to_bytes(), br#"{"text":"hi","speed":1.5}"#);
    }
}
