//! Pictures and sounds: `/v1/images/generations` and `/v1/audio/speech`.
//!
//! One order is one picture; a request for several opens as many. The file is the order's output, so in the open lane
//! it lies under its own CID for everybody.

use crate::{
    Level,
    ask::{Answer, AnswerOutput, Ask, AskInput},
    openai::{ApiError, Provenance, delivery_failed, lane_of},
};
use althing_runtime::{ImageInput, SpeechInput, media::IMAGE_SIDE_DEFAULT};
use althing_types::{Address, Lane, object::SEED_MODULUS};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

/// Most pictures of one request.
const IMAGES_MAX: u32 = 10;
/// Longest side of a picture that is asked for, pixels.
const IMAGE_SIDE_MAX: u32 = 8_192;

/// `POST /v1/images/generations`. Fields that only label a request are accepted and ignored; fields that would change
/// the picture and are not supported are refused.
#[derive(Debug, Deserialize)]
pub struct ImageRequest {
    pub model: String,
    pub prompt: String,
    pub n: Option<u32>,
    pub size: Option<String>,
    #[serde(default)]
    pub response_format: ImageFormat,
    /// Ours: a seed fixed by the client; the next pictures of a request have the next ones. (T-2)
    pub seed: Option<u64>,
    /// Ours: `none`, `agreed` or `final`. (V-1)
    pub wait: Option<Level>,
    /// Ours: the provider to ask, in the chosen lane.
    pub provider: Option<Address>,
    pub quality: Option<String>,
    pub style: Option<String>,
    pub background: Option<String>,
    pub output_format: Option<String>,
    pub stream: Option<bool>,
}

/// How pictures are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    #[default]
    B64Json,
    Url,
}

impl ImageRequest {
    /// The questions that the request asks, one for each picture.
    ///
    /// # Errors
    /// [`ApiError`] with the parameter that cannot be served.
    pub fn to_asks(&self) -> Result<Vec<Ask>, ApiError> {
        let usual = |value: &Option<String>, usual: &[&str]| {
            value.as_deref().is_none_or(|value| value == "auto" || usual.contains(&value))
        };
        for (param, fine) in [
            ("quality", usual(&self.quality, &["standard"])),
            ("style", usual(&self.style, &["vivid"])),
            ("background", usual(&self.background, &["opaque"])),
            ("output_format", usual(&self.output_format, &[])),
            ("stream", self.stream != Some(true)),
        ] {
            if !fine {
                let message = format!("`{param}` is not supported by this network's image models: leave it out");
                return Err(ApiError::invalid(param, message));
            }
        }
        if self.prompt.trim().is_empty() {
            return Err(ApiError::invalid("prompt", "the prompt is empty"));
        }
        let count = self.n.unwrap_or(1);
        if !(1..=IMAGES_MAX).contains(&count) {
            return Err(ApiError::invalid("n", format!("{count} is not between 1 and {IMAGES_MAX}")));
        }
        let (width, height) = self.sides()?;
        let (model, lane) = lane_of(&self.model);
        let ask = |index: u32| Ask {
            model: model.into(),
            lane,
            input: AskInput::Image(ImageInput { prompt: self.prompt.clone(), width, height }),
            seed: self.seed.map(|seed| seed.wrapping_add(index.into()) % SEED_MODULUS),
            provider: self.provider,
            wait: self.wait,
        };
        Ok((0..count).map(ask).collect())
    }

    fn sides(&self) -> Result<(u32, u32), ApiError> {
        let Some(size) = self.size.as_deref().filter(|size| *size != "auto") else {
            return Ok((IMAGE_SIDE_DEFAULT, IMAGE_SIDE_DEFAULT));
        };
        let side = |text: &str| text.parse().ok().filter(|side| (1..=IMAGE_SIDE_MAX).contains(side));
        size.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?))).ok_or_else(|| {
            ApiError::invalid("size", format!("{size:?} is no size: write width and height in pixels, as `512x512`"))
        })
    }

    /// The response; `base_url` is this gateway's.
    ///
    /// # Errors
    /// If an answer is no picture.
    pub fn response(
        &self,
        answers: &[Answer],
        created_s: u64,
        base_url: Option<&str>,
    ) -> Result<serde_json::Value, ApiError> {
        let mut data = Vec::with_capacity(answers.len());
        for answer in answers {
            let AnswerOutput::File { media_type, bytes } = &answer.output else {
                return Err(delivery_failed("the provider delivered something else than a picture".into()));
            };
            let provenance = Provenance::of(answer);
            data.push(match (self.response_format, base_url, answer.order.lane) {
                (ImageFormat::B64Json, ..) => {
                    serde_json::json!({"b64_json": BASE64_STANDARD.encode(bytes), "althing": provenance})
                }
                // Public already, and in this gateway's store.
                (ImageFormat::Url, Some(base_url), Lane::Open) => {
                    serde_json::json!({"url": format!("{base_url}/ipfs/{}", answer.output_cid), "althing": provenance})
                }
                // Between client and provider alone: there is no address where others could see it.
                (ImageFormat::Url, ..) => {
                    let url = format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(bytes));
                    serde_json::json!({"url": url, "althing": provenance})
                }
            });
        }
        Ok(serde_json::json!({"created": created_s, "data": data}))
    }
}

/// `POST /v1/audio/speech`.
#[derive(Debug, Deserialize)]
pub struct SpeechRequest {
    pub model: String,
    pub input: String,
    pub voice: Option<Voice>,
    pub response_format: Option<String>,
    pub speed: Option<f32>,
    pub instructions: Option<String>,
    pub stream_format: Option<String>,
    /// Ours: a seed fixed by the client. (T-2)
    pub seed: Option<u64>,
    /// Ours: `none`, `agreed` or `final`. (V-1)
    pub wait: Option<Level>,
    /// Ours: the provider to ask, in the chosen lane.
    pub provider: Option<Address>,
}

/// A voice by its name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Voice {
    Name(String),
    Id { id: String },
}

impl SpeechRequest {
    /// The question that the request asks.
    ///
    /// # Errors
    /// [`ApiError`] with the parameter that cannot be served.
    pub fn to_ask(&self) -> Result<Ask, ApiError> {
        if self.input.trim().is_empty() {
            return Err(ApiError::invalid("input", "the input is empty"));
        }
        let formats = ["mp3", "opus", "aac", "flac", "wav"];
        if self.response_format.as_deref().is_some_and(|format| !formats.contains(&format)) {
            return Err(ApiError::invalid("response_format", format!("one of {}", formats.join(", "))));
        }
        if self.speed.is_some_and(|speed| !(0.25..=4.0).contains(&speed)) {
            return Err(ApiError::invalid("speed", "between 0.25 and 4"));
        }
        if self.stream_format.as_deref().is_some_and(|format| format != "audio") {
            return Err(ApiError::invalid("stream_format", "only `audio` is supported"));
        }
        let (model, lane) = lane_of(&self.model);
        let voice = self.voice.as_ref().map(|voice| match voice {
            Voice::Name(name) => name.clone(),
            Voice::Id { id } => id.clone(),
        });
        Ok(Ask {
            model: model.into(),
            lane,
            input: AskInput::Speech(SpeechInput {
                text: self.input.clone(),
                voice,
                format: self.response_format.clone(),
                speed: self.speed,
                instructions: self.instructions.clone(),
            }),
            seed: self.seed.map(|seed| seed % SEED_MODULUS),
            provider: self.provider,
            wait: self.wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LaneWish;
    use serde_json::{Value, json};

    fn with(mut body: Value, change: &Value) -> Value {
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    }

    fn images(change: Value) -> Result<Vec<Ask>, ApiError> {
        let body = with(json!({"model": "m:open", "prompt": "a fox"}), &change);
        serde_json::from_value::<ImageRequest>(body).unwrap().to_asks()
    }

    #[test]
    fn a_request_for_pictures_is_an_order_for_each() {
        let asks = images(json!({"n": 3, "size": "640x320", "seed": SEED_MODULUS - 1, "user": "me"})).unwrap();
        let seeds: Vec<_> = asks.iter().map(|ask| ask.seed.unwrap()).collect();
        assert_eq!(seeds, [SEED_MODULUS - 1, 0, 1]);
        assert!(asks.iter().all(|ask| ask.lane == LaneWish::Open && ask.model == "m"));
        let input = ImageInput { prompt: "a fox".into(), width: 640, height: 320 };
        assert_eq!(asks[0].input, AskInput::Image(input));
        let usual =
            images(json!({"quality": "auto", "style": "vivid", "size": "auto", "background": "opaque"})).unwrap();
        let input = ImageInput { prompt: "a fox".into(), width: 512, height: 512 };
        assert_eq!((usual.len(), usual[0].seed, &usual[0].input), (1, None, &AskInput::Image(input)));
    }

    #[test]
    fn what_image_models_cannot_do_is_refused_by_name() {
        for (change, param) in [
            (json!({"n": 0}), "n"),
            (json!({"n": 11}), "n"),
            (json!({"size": "large"}), "size"),
            (json!({"size": "0x5"}), "size"),
            (json!({"size": "9000x5"}), "size"),
            (json!({"prompt": " "}), "prompt"),
            (json!({"quality": "hd"}), "quality"),
            (json!({"style": "natural"}), "style"),
            (json!({"background": "transparent"}), "background"),
            (json!({"output_format": "webp"}), "output_format"),
            (json!({"stream": true}), "stream"),
        ] {
            let error = images(change.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{change}");
        }
    }

    #[test]
    fn a_request_for_speech_says_what_the_model_is_to_do() {
        let ask = |change: Value| {
            let body = with(json!({"model": "m", "input": "hi", "voice": "alloy"}), &change);
            serde_json::from_value::<SpeechRequest>(body).unwrap().to_ask()
        };
        let asked = ask(json!({"response_format": "wav", "voice": {"id": "v"}, "speed": 2.0})).unwrap();
        let input = SpeechInput {
            text: "hi".into(),
            voice: Some("v".into()),
            format: Some("wav".into()),
            speed: Some(2.0),
            instructions: None,
        };
        assert_eq!(asked.input, AskInput::Speech(input));
        for (change, param) in [
            (json!({"input": ""}), "input"),
            (json!({"response_format": "pcm"}), "response_format"),
            (json!({"speed": 5.0}), "speed"),
            (json!({"stream_format": "sse"}), "stream_format"),
        ] {
            assert_eq!(ask(change.clone()).unwrap_err().param.as_deref(), Some(param), "{change}");
        }
    }
}
